import type { Notebook, NotebookPanel } from '@jupyterlab/notebook';
import { LOAD_EXTENSION } from './snippets';

/**
 * Put a code cell below the active one and make it active. Nothing is run.
 *
 * #### Notes
 * A notebook that does not load the magic yet gets a cell that does, first.
 */
export function insertCell(panel: NotebookPanel, source: string): void {
  const notebook = panel.content;
  const sources = loadsExtension(notebook)
    ? [source]
    : [LOAD_EXTENSION, source];
  const first = notebook.activeCellIndex + 1;
  // One call, so that one undo takes all of it back.
  notebook.model?.sharedModel.insertCells(first, sources.map(codeCell));
  notebook.deselectAll();
  notebook.activeCellIndex = first + sources.length - 1;
}

/** A trusted cell; an untrusted one would make the whole notebook untrusted. */
function codeCell(source: string) {
  return { cell_type: 'code', source, metadata: { trusted: true } };
}

function loadsExtension(notebook: Notebook): boolean {
  return Array.from(notebook.model?.cells ?? []).some(
    cell =>
      cell.type === 'code' &&
      /^\s*%(re)?load_ext\s+swift_jupyter\b/m.test(cell.sharedModel.source)
  );
}
