import { ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ServerError } from './api';

/** Say what a failed request means and what to do about it. */
export function explain(error: unknown, trans: TranslationBundle): string {
  if (error instanceof ServerConnection.NetworkError) {
    return trans.__('The Jupyter server does not answer.');
  }
  if (error instanceof ServerError && error.status === 404 && !error.reason) {
    return missingExtension(trans);
  }
  if (error instanceof ServerError && error.status === 403) {
    return trans.__(
      'The Jupyter server does not let you see this: %1',
      error.message
    );
  }
  if (error instanceof ServerError) {
    return [error.message, error.reason].filter(Boolean).join(' ');
  }
  return error instanceof Error ? error.message : String(error);
}

function missingExtension(trans: TranslationBundle): string {
  return trans.__(
    'The Jupyter server has no swift_jupyter extension. Type "jupyter server extension enable swift_jupyter" in a terminal and restart it.'
  );
}
