import type { TranslationBundle } from '@jupyterlab/translation';
import { refreshIcon, VDomRenderer } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import React from 'react';
import { IRunEntry } from './api';
import { Caches } from './components/caches';
import { Models } from './components/models';
import { Runs } from './components/runs';
import { swiftIcon } from './icon';
import { SidebarModel } from './model';

/** The sidebar: what is cached and what runs. */
export class SwiftSidebar extends VDomRenderer<SidebarModel> {
  constructor(
    model: SidebarModel,
    private readonly _options: SwiftSidebar.IOptions
  ) {
    super(model);
    const { trans } = _options;
    this.id = 'swift-jupyter-sidebar';
    this.addClass('jp-SwiftSidebar');
    this.title.icon = swiftIcon;
    this.title.caption = trans.__('Swift: models and runs');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Swift'));
  }

  override dispose(): void {
    this.model.dispose();
    super.dispose();
  }

  protected override onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    void this.model.refresh();
  }

  protected override onAfterAttach(msg: Message): void {
    super.onAfterAttach(msg);
    // A layout that is restored with the sidebar open sends no show message.
    if (this.isVisible) {
      void this.model.refresh();
    }
  }

  protected override render(): JSX.Element {
    const { model } = this;
    const { trans, onInsert, onStop } = this._options;
    return (
      <>
        <header className="jp-SwiftSidebar-header">
          <h1>{trans.__('Swift')}</h1>
          <button
            className="jp-Button jp-mod-minimal"
            aria-label={trans.__('Refresh')}
            title={trans.__('Refresh')}
            aria-busy={model.isBusy}
            onClick={() => void model.refresh()}
          >
            <refreshIcon.react tag="span" />
          </button>
        </header>
        <Models trans={trans} fetched={model.models} onInsert={onInsert} />
        <Runs
          trans={trans}
          fetched={model.runs}
          onInsert={onInsert}
          onStop={onStop}
        />
        <Caches
          trans={trans}
          listing={model.models.content}
          environment={model.environment}
        />
      </>
    );
  }
}

export namespace SwiftSidebar {
  /** What the sidebar needs besides its model. */
  export interface IOptions {
    trans: TranslationBundle;
    /** Put a cell with this source into the notebook. */
    onInsert: (source: string) => void;
    /** Stop a run. */
    onStop: (run: IRunEntry) => void;
  }
}
