/** One run in the main area: its leaderboard, the source of the chosen candidate, and the steering that needs no kernel. */
import { InputDialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import { IRow, IRun, candidate, run, steer } from './api';
import { button, element, table, times } from './dom';
import { Poller } from './poller';

export class RunWidget extends Widget {
  constructor(readonly run: string) {
    super();
    this.addClass('kel-run-view');
    this.node.dataset.lmSuppressShortcuts = 'true';
    this._headline = element('h2');
    this._message = element('p', 'kel-message');
    this._message.setAttribute('aria-live', 'polite');
    this._buttons = element('div', 'kel-buttons');
    const leaderboard = table('Leaderboard', ['Candidate', 'Verdict', 'Speedup, 95 % interval', 'Evidence', 'Title', '']);
    this._rows = leaderboard.body;
    this._source = element('pre', 'kel-source');
    this._source.tabIndex = 0;
    const body = element('div', 'kel-columns', element('div', 'kel-scroll', leaderboard.table), this._source);
    this.node.append(this._headline, this._message, this._buttons, body);
    this._poller = new Poller(() => this.refresh(), 1000);
  }

  dispose(): void {
    this._poller.stop();
    super.dispose();
  }

  protected onAfterShow(): void {
    this._poller.start();
  }

  protected onAfterHide(): void {
    this._poller.stop();
  }

  async refresh(): Promise<void> {
    try {
      const found = await run(this.run);
      if (found.seq !== this._seq) {
        this._seq = found.seq;
        this.draw(found);
      }
    } catch (error) {
      this._message.textContent = `The run cannot be read: ${(error as Error).message}`;
    }
  }

  private draw(found: IRun): void {
    this._headline.textContent = `${found.title} on ${found.target}`;
    const budget = found.budget ? ` of ${found.budget}` : '';
    const end = found.status === 'ended' ? found.reason : found.phase;
    this._message.textContent = `${found.status} · ${found.judged}${budget} candidates judged · ${end}`;
    const choices = found.status === 'paused' ? ['resume', 'stop'] : found.status === 'running' ? ['pause', 'stop'] : [];
    this._buttons.replaceChildren(...choices.map(command => button(command, () => void this.send({ command }))));
    this._rows.replaceChildren(...found.rows.map(row => this.line(row, found)));
  }

  private line(row: IRow, found: IRun): HTMLTableRowElement {
    const line = element('tr', row.banned ? 'kel-banned' : row.id === found.best ? 'kel-best' : '');
    const show = button(row.id, () => void this.inspect(row.id), 'Show the source');
    const ratio = row.speedup;
    const speedup = ratio ? `${times(ratio.value)} (${ratio.low.toFixed(2)} to ${ratio.high.toFixed(2)}) over ${ratio.baseline}` : '';
    line.append(
      element('td', '', show),
      element('td', `kel-verdict-${row.verdict}`, row.rejected === null ? row.verdict : `rejected: ${row.rejected}`),
      element('td', 'kel-number', speedup),
      element('td', '', row.evidence),
      element('td', '', row.title),
      element('td', '', ...(found.status === 'ended' || row.banned ? [] : [button('reject', () => void this.reject(row.id))]))
    );
    return line;
  }

  private async inspect(name: string): Promise<void> {
    const found = await candidate(this.run, name);
    this._source.textContent = [...found.reasons, found.diagnosis, found.source].filter(Boolean).join('\n\n');
  }

  private async reject(name: string): Promise<void> {
    const answer = await InputDialog.getText({ title: `Reject ${name}`, label: 'Reason, as the proposer will read it', okLabel: 'Reject' });
    if (answer.button.accept && answer.value) {
      await this.send({ command: 'reject', candidate: name, reason: answer.value });
    }
  }

  private async send(command: object): Promise<void> {
    try {
      await steer(this.run, command);
      await this.refresh();
    } catch (error) {
      this._message.textContent = `Not done: ${(error as Error).message}`;
    }
  }

  private _headline: HTMLHeadingElement;
  private _message: HTMLParagraphElement;
  private _buttons: HTMLDivElement;
  private _rows: HTMLTableSectionElement;
  private _source: HTMLPreElement;
  private _poller: Poller;
  private _seq = -1;
}
