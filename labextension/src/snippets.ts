import type { IModelEntry, IRunEntry } from './api';

/** The model that needs no hub, for the very first step. */
export const DEMO_MODEL = 'smollm2-demo';

/** The cell that makes the magic known. */
export const LOAD_EXTENSION = '%load_ext swift_jupyter';

/** The cell that downloads a model, or goes on with a download. */
export function downloadCell(name: string): string {
  return `%swift download ${quote(name)}`;
}

/** The cell that asks a model something. */
export function inferCell(name: string): string {
  return `%%swift infer --model ${quote(name)}\nHello! What can you do?`;
}

/** The cell that draws a run again. */
export function attachCell(run: IRunEntry): string {
  return `%swift runs attach ${quote(run.id)}`;
}

/** The next cell for a cached model. */
export function modelCell(model: IModelEntry): string {
  return model.complete
    ? inferCell(model.repo_id)
    : downloadCell(model.repo_id);
}

/**
 * Whether a name fits on the line of a magic.
 *
 * #### Notes
 * Names come from folders. One with a line break would put code of its own
 * into the cell.
 */
export function fitsOnALine(name: string): boolean {
  return name !== '' && !/[\p{Cc}\u2028\u2029]/u.test(name);
}

/** Write an argument as a POSIX shell would need it, which the magic follows. */
function quote(argument: string): string {
  if (!fitsOnALine(argument)) {
    throw new RangeError('The name does not fit on one line.');
  }
  return /^[\p{L}\p{N}_./:@+-]+$/u.test(argument)
    ? argument
    : `"${argument.replace(/["\\]/g, '\\$&')}"`;
}
