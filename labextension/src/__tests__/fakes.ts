import {
  IEnvironment,
  IModelEntry,
  IModelListing,
  IRunEntry,
  ISwiftServer
} from '../api';

/** A complete model, changed by `fields`. */
export function aModel(fields: Partial<IModelEntry> = {}): IModelEntry {
  return {
    repo_id: 'org/tiny',
    hub: 'Hugging Face',
    path: '/cache/hub/models--org--tiny',
    size_bytes: 1_500_000,
    size_str: '1.5 MB',
    complete: true,
    ...fields
  };
}

/** A running run, changed by `fields`. */
export function aRun(fields: Partial<IRunEntry> = {}): IRunEntry {
  return {
    id: 'v0-20260101-120000',
    command: 'sft',
    title: 'org/tiny',
    state: 'running',
    reason: '',
    step: 30,
    max_steps: 120,
    loss: 1.23456,
    output_dir: '/home/ada/output/v0-20260101-120000',
    ...fields
  };
}

/** A server whose answers a test sets. */
export class FakeServer implements ISwiftServer {
  listing: IModelListing | Error = {
    cache: { 'Hugging Face': '/cache/hub' },
    models: [],
    warnings: []
  };
  runEntries: IRunEntry[] | Error = [];
  asked = 0;
  stopped: string[] = [];

  async environment(): Promise<IEnvironment> {
    return { python: '/opt/python', version: '0.1.0' };
  }

  async models(): Promise<IModelListing> {
    this.asked += 1;
    return answer(this.listing);
  }

  async runs(): Promise<IRunEntry[]> {
    return answer(this.runEntries);
  }

  async stop(runId: string): Promise<void> {
    this.stopped.push(runId);
  }

  setModels(...models: IModelEntry[]): void {
    this.listing = { cache: {}, models, warnings: [] };
  }
}

function answer<T>(value: T | Error): T {
  if (value instanceof Error) {
    throw value;
  }
  return value;
}
