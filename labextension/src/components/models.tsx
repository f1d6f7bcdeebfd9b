import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { IModelEntry, IModelListing } from '../api';
import { explain } from '../errors';
import { IFetched } from '../model';
import { DEMO_MODEL, downloadCell, fitsOnALine, modelCell } from '../snippets';
import { Section } from './section';

interface IModelsProps {
  trans: TranslationBundle;
  fetched: IFetched<IModelListing>;
  onInsert: (source: string) => void;
}

/** The cached models, or the first step where there is none. */
export function Models(props: IModelsProps): JSX.Element {
  const { trans, fetched } = props;
  const { content, error } = fetched;
  return (
    <Section title={trans.__('Models')}>
      {error ? <p role="alert">{explain(error, trans)}</p> : null}
      {!content && !error ? <p role="status">{trans.__('Loading…')}</p> : null}
      {content && content.models.length === 0 ? <FirstStep {...props} /> : null}
      {content && content.models.length > 0 ? (
        <ul
          className="jp-SwiftSidebar-list"
          aria-label={trans.__('Cached models')}
        >
          {content.models.map(model => (
            <ModelRow
              {...props}
              key={`${model.hub} ${model.path}`}
              model={model}
            />
          ))}
        </ul>
      ) : null}
    </Section>
  );
}

function FirstStep({ trans, onInsert }: IModelsProps): JSX.Element {
  const cell = downloadCell(DEMO_MODEL);
  return (
    <div className="jp-SwiftSidebar-empty">
      <p>
        {trans.__(
          'No model is cached yet. Begin with a small one that needs no hub:'
        )}
      </p>
      <code>{cell}</code>
      <button
        className="jp-mod-styled jp-mod-accept"
        onClick={() => onInsert(cell)}
      >
        {trans.__('Insert cell')}
      </button>
    </div>
  );
}

function ModelRow(props: IModelsProps & { model: IModelEntry }): JSX.Element {
  const { trans, model, onInsert } = props;
  return (
    <li className="jp-SwiftSidebar-row" title={model.path}>
      <span className="jp-SwiftSidebar-name">{model.repo_id}</span>
      <button
        className="jp-mod-styled jp-SwiftSidebar-action"
        aria-label={trans.__('Insert cell for %1', model.repo_id)}
        disabled={!fitsOnALine(model.repo_id)}
        onClick={() => onInsert(modelCell(model))}
      >
        {trans.__('Insert cell')}
      </button>
      <span className="jp-SwiftSidebar-detail">
        {model.size_str} · {model.hub} ·{' '}
        <span className={model.complete ? undefined : 'jp-mod-warning'}>
          {model.complete ? trans.__('complete') : trans.__('incomplete')}
        </span>
      </span>
    </li>
  );
}
