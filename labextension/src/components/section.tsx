import React, { useId } from 'react';

/** A headed part of the sidebar. */
export function Section(props: {
  title: string;
  children: React.ReactNode;
}): JSX.Element {
  const heading = useId();
  return (
    <section className="jp-SwiftSidebar-section" aria-labelledby={heading}>
      <h2 id={heading} className="jp-SwiftSidebar-heading">
        {props.title}
      </h2>
      {props.children}
    </section>
  );
}
