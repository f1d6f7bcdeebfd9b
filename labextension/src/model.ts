import { VDomModel } from '@jupyterlab/ui-components';
import { IPoll, Poll } from '@lumino/polling';
import { IEnvironment, IModelListing, IRunEntry, ISwiftServer } from './api';

/** Failures in a row stretch the interval up to this many milliseconds. */
const SLOWEST = 5 * 60 * 1000;

/** A list of the sidebar: its last good content and what went wrong since. */
export interface IFetched<T> {
  content: T | null;
  error: unknown;
}

/** What the sidebar shows, kept up to date by polling while it is visible. */
export class SidebarModel extends VDomModel {
  constructor(options: SidebarModel.IOptions) {
    super();
    this._server = options.server;
    this._poll = new Poll({
      name: 'swift-jupyter:sidebar',
      auto: false,
      factory: () => this._fetch(),
      frequency: frequency(options.interval),
      // Neither a hidden browser tab nor a closed sidebar costs the server anything.
      standby: () => (options.isVisible() ? 'when-hidden' : true)
    });
  }

  /** The cached models. */
  get models(): IFetched<IModelListing> {
    return this._models;
  }

  /** The runs. */
  get runs(): IFetched<IRunEntry[]> {
    return this._runs;
  }

  /** The server's Python, once it is known. */
  get environment(): IEnvironment | null {
    return this._environment;
  }

  /** Whether an answer of the server is awaited. */
  get isBusy(): boolean {
    return this._isBusy;
  }

  /** Set the seconds between two refreshes. */
  setInterval(seconds: number): void {
    this._poll.frequency = frequency(seconds);
  }

  /** Ask now; later refreshes follow at the interval. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
    await this._poll.tick.catch(() => undefined);
  }

  /** Ask a run to stop, then show what became of it. */
  async stop(run: IRunEntry): Promise<void> {
    await this._server.stop(run.id);
    await this.refresh();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._poll.dispose();
    super.dispose();
  }

  private async _fetch(): Promise<void> {
    this._isBusy = true;
    this.stateChanged.emit();
    const [models, runs, environment] = await Promise.allSettled([
      this._server.models(),
      this._server.runs(),
      this._environment ?? this._server.environment()
    ]);
    if (this.isDisposed) {
      return;
    }
    this._models = merge(this._models, models);
    this._runs = merge(this._runs, runs);
    if (environment.status === 'fulfilled') {
      this._environment = environment.value;
    }
    this._isBusy = false;
    this.stateChanged.emit();
    const failed = [models, runs].find(({ status }) => status === 'rejected');
    if (failed) {
      // The poll waits longer after a failure, so it has to hear of it.
      throw (failed as PromiseRejectedResult).reason;
    }
  }

  private readonly _server: ISwiftServer;
  private readonly _poll: Poll;
  private _models: IFetched<IModelListing> = { content: null, error: null };
  private _runs: IFetched<IRunEntry[]> = { content: null, error: null };
  private _environment: IEnvironment | null = null;
  private _isBusy = false;
}

export namespace SidebarModel {
  /** What a model is made from. */
  export interface IOptions {
    server: ISwiftServer;
    /** Seconds between two refreshes. */
    interval: number;
    /** Whether a person can see the sidebar. */
    isVisible: () => boolean;
  }
}

function frequency(seconds: number): IPoll.Frequency {
  return { interval: seconds * 1000, backoff: true, max: SLOWEST };
}

/** After a failure the last good content stays in view beside the error. */
function merge<T>(
  before: IFetched<T>,
  outcome: PromiseSettledResult<T>
): IFetched<T> {
  return outcome.status === 'fulfilled'
    ? { content: outcome.value, error: null }
    : { content: before.content, error: outcome.reason };
}
