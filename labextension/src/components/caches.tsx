import type { TranslationBundle } from '@jupyterlab/translation';
import React from 'react';
import { IEnvironment, IModelListing } from '../api';
import { Section } from './section';

interface ICachesProps {
  trans: TranslationBundle;
  listing: IModelListing | null;
  environment: IEnvironment | null;
}

/** Where the lists come from: a kernel may look elsewhere. */
export function Caches(props: ICachesProps): JSX.Element | null {
  const { trans, listing, environment } = props;
  if (!listing) {
    return null;
  }
  const places = Object.entries(listing.cache);
  if (environment) {
    places.push([trans.__('Python of the server'), environment.python]);
  }
  return (
    <Section title={trans.__('Folders that are read')}>
      <dl className="jp-SwiftSidebar-places">
        {places.map(([name, path]) => (
          <React.Fragment key={name}>
            <dt>{name}</dt>
            <dd>{path}</dd>
          </React.Fragment>
        ))}
      </dl>
      {listing.warnings.map(warning => (
        <p key={warning} className="jp-mod-warning">
          {warning}
        </p>
      ))}
    </Section>
  );
}
