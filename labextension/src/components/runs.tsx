import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { IRunEntry } from '../api';
import { explain } from '../errors';
import { IFetched } from '../model';
import { attachCell, fitsOnALine } from '../snippets';
import { Section } from './section';

interface IRunsProps {
  trans: TranslationBundle;
  fetched: IFetched<IRunEntry[]>;
  onInsert: (source: string) => void;
  onStop: (run: IRunEntry) => void;
}

/** The states in which a run can still be asked to stop. */
const STOPPABLE = new Set(['queued', 'starting', 'running']);

/** The runs with their progress. */
export function Runs(props: IRunsProps): JSX.Element {
  const { trans, fetched } = props;
  const { content, error } = fetched;
  return (
    <Section title={trans.__('Runs')}>
      {error ? <p role="alert">{explain(error, trans)}</p> : null}
      {!content && !error ? <p role="status">{trans.__('Loading…')}</p> : null}
      {content && content.length === 0 ? (
        <p>{trans.__('No run yet. %1 starts one.', '%%swift sft')}</p>
      ) : null}
      {content && content.length > 0 ? (
        <ul className="jp-SwiftSidebar-list" aria-label={trans.__('Runs')}>
          {content.map(run => (
            <RunRow {...props} key={run.id} run={run} />
          ))}
        </ul>
      ) : null}
    </Section>
  );
}

function RunRow(props: IRunsProps & { run: IRunEntry }): JSX.Element {
  const { trans, run, onInsert, onStop } = props;
  return (
    <li className="jp-SwiftSidebar-row" title={run.output_dir}>
      <span className="jp-SwiftSidebar-name">{run.id}</span>
      <span className="jp-SwiftSidebar-actions">
        {STOPPABLE.has(run.state) ? (
          <button
            className="jp-mod-styled jp-mod-warn jp-SwiftSidebar-action"
            aria-label={trans.__('Stop %1', run.id)}
            onClick={() => onStop(run)}
          >
            {trans.__('Stop')}
          </button>
        ) : null}
        <button
          className="jp-mod-styled jp-SwiftSidebar-action"
          aria-label={trans.__('Insert cell for %1', run.id)}
          disabled={!fitsOnALine(run.id)}
          onClick={() => onInsert(attachCell(run))}
        >
          {trans.__('Insert cell')}
        </button>
      </span>
      <span className="jp-SwiftSidebar-detail">{describe(run, trans)}</span>
      <Progress run={run} trans={trans} />
    </li>
  );
}

function Progress(props: {
  run: IRunEntry;
  trans: TranslationBundle;
}): JSX.Element | null {
  const { run, trans } = props;
  const share = run.max_steps ? run.step / run.max_steps : run.share;
  if (!STOPPABLE.has(run.state) || typeof share !== 'number') {
    return null;
  }
  return (
    <progress
      aria-label={trans.__('Progress of %1', run.id)}
      max={1}
      value={share}
    />
  );
}

function describe(run: IRunEntry, trans: TranslationBundle): string {
  const state = stateName(run.state, trans);
  const parts = [
    run.command,
    run.title,
    run.reason ? `${state}: ${run.reason}` : state
  ];
  if (run.step) {
    parts.push(
      run.max_steps
        ? trans.__('step %1 of %2', run.step, run.max_steps)
        : trans.__('step %1', run.step)
    );
  }
  if (run.detail) {
    parts.push(run.detail);
  }
  if (run.loss !== null) {
    const loss =
      typeof run.loss === 'number' ? run.loss.toPrecision(4) : run.loss;
    parts.push(trans.__('loss %1', loss));
  }
  return parts.filter(Boolean).join(' · ');
}

function stateName(state: string, trans: TranslationBundle): string {
  const names: Record<string, string> = {
    queued: trans.__('queued'),
    starting: trans.__('starting'),
    running: trans.__('running'),
    stopping: trans.__('stopping'),
    stopped: trans.__('stopped'),
    done: trans.__('done'),
    failed: trans.__('failed'),
    lost: trans.__('lost')
  };
  return names[state] ?? state;
}
