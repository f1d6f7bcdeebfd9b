import {
  ILabShell,
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import {
  Dialog,
  ICommandPalette,
  Notification,
  showDialog
} from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import {
  ITranslator,
  nullTranslator,
  TranslationBundle
} from '@jupyterlab/translation';
import { IRunEntry, SwiftServer } from './api';
import { explain } from './errors';
import { insertCell } from './insert';
import { SidebarModel } from './model';
import { SwiftSidebar } from './sidebar';

const PLUGIN_ID = 'swift-jupyter:plugin';
const DEFAULT_INTERVAL = 10;

/** Milliseconds for which an offer stays on the screen. */
const SHOWN_FOR = 15_000;

namespace CommandIDs {
  export const open = 'swift-jupyter:open';
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN_ID,
  description: 'A sidebar with the cached models and the runs.',
  autoStart: true,
  optional: [
    ILabShell,
    ILayoutRestorer,
    ICommandPalette,
    INotebookTracker,
    ISettingRegistry,
    ITranslator
  ],
  activate: (
    app: JupyterFrontEnd,
    labShell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    tracker: INotebookTracker | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load('swift_jupyter');
    const shell = labShell ?? app.shell;
    const model: SidebarModel = new SidebarModel({
      server: new SwiftServer(app.serviceManager.serverSettings),
      interval: DEFAULT_INTERVAL,
      isVisible: () => sidebar.isVisible
    });
    const sidebar = new SwiftSidebar(model, {
      trans,
      onInsert: source => insertIntoNotebook(app, tracker, trans, source),
      onStop: run => void stopRun(model, trans, run)
    });
    shell.add(sidebar, 'left', { rank: 600, type: 'Swift' });
    restorer?.add(sidebar, sidebar.id);

    app.commands.addCommand(CommandIDs.open, {
      label: trans.__('Show Models and Runs'),
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => shell.activateById(sidebar.id)
    });
    palette?.addItem({
      command: CommandIDs.open,
      category: trans.__('Swift')
    });
    if (registry) {
      void followSettings(registry, model);
    }
  }
};

/** Keep the model's interval equal to the user's setting. */
async function followSettings(
  registry: ISettingRegistry,
  model: SidebarModel
): Promise<void> {
  const settings = await registry.load(PLUGIN_ID);
  const apply = () => {
    model.setInterval(settings.get('pollInterval').composite as number);
  };
  apply();
  settings.changed.connect(apply);
}

/** Insert into the current notebook, or offer to make one. */
function insertIntoNotebook(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  trans: TranslationBundle,
  source: string
): void {
  const current = tracker?.currentWidget;
  if (current) {
    insertCell(current, source);
    // Gives the new cell the keyboard, so that Shift+Enter runs it.
    app.shell.activateById(current.id);
    return;
  }
  Notification.warning(trans.__('No notebook is open.'), {
    autoClose: SHOWN_FOR,
    actions: [
      {
        label: trans.__('New notebook'),
        callback: () => void insertIntoNewNotebook(app, source)
      }
    ]
  });
}

async function insertIntoNewNotebook(
  app: JupyterFrontEnd,
  source: string
): Promise<void> {
  const panel: NotebookPanel = await app.commands.execute(
    'notebook:create-new'
  );
  await panel.context.ready;
  insertCell(panel, source);
}

/** Stop a run after the user has agreed. */
async function stopRun(
  model: SidebarModel,
  trans: TranslationBundle,
  run: IRunEntry
): Promise<void> {
  const answer = await showDialog({
    title: trans.__('Stop the run?'),
    body: trans.__(
      '%1 keeps what it has done and ends. It can be resumed from there.',
      run.id
    ),
    buttons: [
      Dialog.cancelButton(),
      Dialog.warnButton({ label: trans.__('Stop') })
    ]
  });
  if (!answer.button.accept) {
    return;
  }
  try {
    await model.stop(run);
  } catch (error) {
    Notification.error(explain(error, trans), { autoClose: false });
  }
}

export default plugin;
