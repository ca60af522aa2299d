/** Asks again and again while a widget is visible; a slow answer delays the next question instead of piling up. */
export class Poller {
  constructor(
    private ask: () => Promise<void>,
    private period = 2000
  ) {}

  start(): void {
    this.stop();
    const turn = ++this._turn;
    const next = async (): Promise<void> => {
      await this.ask();
      if (turn === this._turn) {
        this._timer = window.setTimeout(next, this.period);
      }
    };
    void next();
  }

  stop(): void {
    this._turn++;
    window.clearTimeout(this._timer);
  }

  private _turn = 0;
  private _timer = 0;
}
