import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** The URL prefix of the server extension. */
const NAMESPACE = 'swift-jupyter';

/** A model in one of the caches. */
export interface IModelEntry {
  repo_id: string;
  /** The hub's name as a person reads it. */
  hub: string;
  path: string;
  size_bytes: number;
  size_str: string;
  complete: boolean;
}

/** The models that the server found, and where it looked. */
export interface IModelListing {
  /** The cache folders by the name of what fills them. */
  cache: Record<string, string>;
  models: IModelEntry[];
  warnings: string[];
}

/** A run, as its folder tells it. */
export interface IRunEntry {
  id: string;
  command: string;
  /** What it works on, in a few words; may be empty. */
  title: string;
  state: string;
  /** Why it failed or stopped; empty otherwise. */
  reason: string;
  /** Both steps are 0 until the first one is logged. */
  step: number;
  max_steps: number;
  /** A number, or the text of one that JSON cannot hold, such as `nan`. */
  loss: number | string | null;
  output_dir: string;
  /** How much is done, 0 to 1, of a run that has no steps. */
  share?: number | null;
  /** The same in words, such as bytes and speed of a download. */
  detail?: string;
}

/** Which Python the server runs in; a kernel's may be another one. */
export interface IEnvironment {
  python: string;
  version: string | null;
}

/** What the sidebar asks of the server. */
export interface ISwiftServer {
  environment(): Promise<IEnvironment>;
  models(): Promise<IModelListing>;
  runs(): Promise<IRunEntry[]>;
  stop(runId: string): Promise<void>;
}

/** An answer other than success, in the server's own words. */
export class ServerError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly reason = ''
  ) {
    super(message);
    this.name = 'ServerError';
  }
}

/** The REST interface of the Python package. */
export class SwiftServer implements ISwiftServer {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  /** Return the Python that answers. */
  environment(): Promise<IEnvironment> {
    return this._request<IEnvironment>('env');
  }

  /** Return the cached models. */
  models(): Promise<IModelListing> {
    return this._request<IModelListing>('models');
  }

  /** Return the runs, the newest first. */
  async runs(): Promise<IRunEntry[]> {
    return (await this._request<{ runs: IRunEntry[] }>('runs')).runs;
  }

  /** Ask a run to write a checkpoint and end. */
  async stop(runId: string): Promise<void> {
    await this._request(`runs/${encodeURIComponent(runId)}/stop`, 'POST');
  }

  private async _request<T>(path: string, method = 'GET'): Promise<T> {
    const url = URLExt.join(this._settings.baseUrl, NAMESPACE, path);
    const response = await ServerConnection.makeRequest(
      url,
      { method },
      this._settings
    );
    const text = await response.text();
    if (!response.ok) {
      throw failure(response, text);
    }
    return JSON.parse(text) as T;
  }
}

/** Read the server's JSON error; a proxy in between may answer in HTML. */
function failure(response: Response, text: string): ServerError {
  try {
    const { message, reason } = JSON.parse(text);
    return new ServerError(
      response.status,
      String(message || response.statusText),
      String(reason ?? '')
    );
  } catch {
    return new ServerError(response.status, response.statusText);
  }
}
