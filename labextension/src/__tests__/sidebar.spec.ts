import { ServerConnection } from '@jupyterlab/services';
import { nullTranslator } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import {
  fireEvent,
  getByRole,
  queryByRole,
  waitFor,
  within
} from '@testing-library/dom';
import { IRunEntry, ServerError } from '../api';
import { SidebarModel } from '../model';
import { SwiftSidebar } from '../sidebar';
import { aModel, aRun, FakeServer } from './fakes';

let server: FakeServer;
let sidebar: SwiftSidebar;
let inserted: string[];
let stopped: IRunEntry[];

beforeEach(() => {
  server = new FakeServer();
  inserted = [];
  stopped = [];
});

afterEach(() => {
  sidebar.dispose();
});

/** Show the sidebar and wait until it has drawn the server's answer. */
async function show(): Promise<HTMLElement> {
  const model: SidebarModel = new SidebarModel({
    server,
    interval: 3600,
    isVisible: () => sidebar.isVisible
  });
  sidebar = new SwiftSidebar(model, {
    trans: nullTranslator.load('swift_jupyter'),
    onInsert: source => inserted.push(source),
    onStop: run => stopped.push(run)
  });
  Widget.attach(sidebar, document.body);
  await drawn();
  return sidebar.node;
}

async function drawn(): Promise<void> {
  await waitFor(() => {
    expect(queryByRole(sidebar.node, 'status')).toBeNull();
    expect(button('Refresh').getAttribute('aria-busy')).toBe('false');
  });
}

function button(name: string): HTMLButtonElement {
  return getByRole(sidebar.node, 'button', { name });
}

describe('an empty cache', () => {
  it('explains the first step', async () => {
    const node = await show();

    expect(node.textContent).toContain('No model is cached yet');
    expect(node.textContent).toContain('%swift download smollm2-demo');
    expect(node.textContent).toContain('No run yet');
  });

  it('inserts the first step', async () => {
    await show();

    fireEvent.click(button('Insert cell'));

    expect(inserted).toEqual(['%swift download smollm2-demo']);
  });

  it('says which folders and which Python it reads', async () => {
    const node = await show();

    expect(node.textContent).toContain('/cache/hub');
    expect(node.textContent).toContain('/opt/python');
  });
});

describe('cached models', () => {
  it('are listed with size, hub and completeness', async () => {
    server.setModels(
      aModel(),
      aModel({ repo_id: 'org/half', path: '/half', complete: false })
    );

    const node = await show();

    const list = getByRole(node, 'list', { name: 'Cached models' });
    const [whole, half] = within(list).getAllByRole('listitem');
    expect(whole.textContent).toContain('org/tiny');
    expect(whole.textContent).toContain('1.5 MB · Hugging Face · complete');
    expect(half.textContent).toContain('incomplete');
  });

  it('are asked something when whole, downloaded when not', async () => {
    server.setModels(
      aModel(),
      aModel({ repo_id: 'org/half', path: '/half', complete: false })
    );
    await show();

    fireEvent.click(button('Insert cell for org/tiny'));
    fireEvent.click(button('Insert cell for org/half'));

    expect(inserted[0]).toMatch(/^%%swift infer --model org\/tiny\n.+/);
    expect(inserted[1]).toBe('%swift download org/half');
  });

  it('show markup in their names as text', async () => {
    const name = '<img src=x onerror=alert(1)>';
    server.setModels(aModel({ repo_id: name }));

    const node = await show();

    expect(node.querySelector('img')).toBeNull();
    expect(node.textContent).toContain(name);
  });

  it('offer no cell when their name would break the line', async () => {
    const name = 'x\nimport os';
    server.setModels(aModel({ repo_id: name }));

    const node = await show();

    const list = getByRole(node, 'list', { name: 'Cached models' });
    const action = within(list).getByRole<HTMLButtonElement>('button');
    expect(action.disabled).toBe(true);
  });

  it('appear after a refresh', async () => {
    const node = await show();
    server.setModels(aModel());

    fireEvent.click(button('Refresh'));

    await waitFor(() => expect(node.textContent).toContain('org/tiny'));
    expect(node.textContent).not.toContain('No model is cached yet');
  });
});

describe('runs', () => {
  it('show their state, step, loss and progress', async () => {
    server.runEntries = [aRun()];

    const node = await show();

    expect(node.textContent).toContain(
      'sft · org/tiny · running · step 30 of 120 · loss 1.235'
    );
    const progress = getByRole<HTMLProgressElement>(node, 'progressbar');
    expect([progress.value, progress.max]).toEqual([0.25, 1]);
  });

  it('show how far a download is', async () => {
    server.runEntries = [
      aRun({
        command: 'download',
        step: 0,
        max_steps: 0,
        loss: null,
        share: 0.5,
        detail: '2.0 GB of 4.0 GB, 80 MB/s'
      })
    ];

    const node = await show();

    expect(node.textContent).toContain(
      'download · org/tiny · running · 2.0 GB of 4.0 GB, 80 MB/s'
    );
    const progress = getByRole<HTMLProgressElement>(node, 'progressbar');
    expect([progress.value, progress.max]).toEqual([0.5, 1]);
  });

  it('show why they failed, a diverged loss and no step', async () => {
    server.runEntries = [
      aRun({
        loss: 'nan',
        step: 0,
        max_steps: 0,
        state: 'failed',
        reason: 'out of memory'
      })
    ];

    const node = await show();

    expect(node.textContent).toContain(
      'sft · org/tiny · failed: out of memory · loss nan'
    );
  });

  it('can be stopped only while they are active', async () => {
    server.runEntries = [aRun(), aRun({ id: 'v1-done', state: 'done' })];
    const node = await show();

    expect(queryByRole(node, 'button', { name: 'Stop v1-done' })).toBeNull();
    fireEvent.click(button('Stop v0-20260101-120000'));

    expect(stopped.map(run => run.id)).toEqual(['v0-20260101-120000']);
  });

  it('insert the cell that draws them', async () => {
    server.runEntries = [aRun()];
    await show();

    fireEvent.click(button('Insert cell for v0-20260101-120000'));

    expect(inserted).toEqual(['%swift runs attach v0-20260101-120000']);
  });
});

describe('a failing server', () => {
  it('says its reason in an alert and keeps the other list', async () => {
    server.listing = new ServerError(
      500,
      'The settings file is bad.',
      'Mend it.'
    );
    server.runEntries = [aRun()];

    const node = await show();

    const alert = getByRole(node, 'alert');
    expect(alert.textContent).toBe('The settings file is bad. Mend it.');
    expect(node.textContent).toContain('v0-20260101-120000');
  });

  it('keeps the last good list in view', async () => {
    server.setModels(aModel());
    const node = await show();
    server.listing = new ServerConnection.NetworkError(new TypeError('down'));

    fireEvent.click(button('Refresh'));

    await waitFor(() =>
      expect(getByRole(node, 'alert').textContent).toContain('does not answer')
    );
    expect(node.textContent).toContain('org/tiny');
  });

  it('names the command when the server extension is missing', async () => {
    server.listing = new ServerError(404, 'Not Found');

    const node = await show();

    expect(getByRole(node, 'alert').textContent).toContain(
      'jupyter server extension enable swift_jupyter'
    );
  });
});

it('asks nothing of the server while it is hidden', async () => {
  await show();
  const before = server.asked;

  sidebar.hide();
  await sidebar.model.refresh();

  expect(server.asked).toBe(before);
});

it('asks again when it is shown', async () => {
  await show();
  const before = server.asked;

  sidebar.hide();
  sidebar.show();

  await waitFor(() => expect(server.asked).toBeGreaterThan(before));
});
