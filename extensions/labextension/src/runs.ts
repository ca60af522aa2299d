/** The left panel: the runs of the store, newest first. */
import { Widget } from '@lumino/widgets';

import { IRunSummary, runs } from './api';
import { button, element, times } from './dom';
import { Poller } from './poller';

export class RunsPanel extends Widget {
  constructor(
    private open: (run: string) => void,
    create: () => void
  ) {
    super();
    this.id = 'kernelevolve-runs';
    this.addClass('kel-panel');
    this._list = element('ul', 'kel-runs');
    this._message = element('p', 'kel-message');
    const header = element('div', 'kel-header', element('h2', '', 'Kernel search'), button('New search', create));
    this.node.append(header, this._message, this._list);
    this._poller = new Poller(() => this.refresh());
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
      const found = await runs();
      const shown = JSON.stringify(found);
      if (shown !== this._shown) {
        this._list.replaceChildren(...found.map(run => this.item(run)));
        this._shown = shown;
      }
      this._message.textContent = found.length ? '' : 'No runs yet. Start one from a notebook, or with New search.';
    } catch (error) {
      this._message.textContent = `The runs cannot be read: ${(error as Error).message}`;
    }
  }

  private item(run: IRunSummary): HTMLLIElement {
    const best = run.speedup ? `${times(run.speedup)} over ${run.baseline}, ${run.evidence}` : 'no winner yet';
    const node = element(
      'button',
      'kel-run',
      element('span', 'kel-run-title', run.title),
      element('span', `kel-status kel-status-${run.status}`, run.status),
      element('span', 'kel-run-detail', `${run.target} · ${run.language} · ${run.judged} judged · ${best}`)
    );
    node.title = run.id;
    node.addEventListener('click', () => this.open(run.id));
    return element('li', '', node);
  }

  private _list: HTMLUListElement;
  private _message: HTMLParagraphElement;
  private _poller: Poller;
  private _shown = '';
}
