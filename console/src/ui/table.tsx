// A table that becomes a list of cards where the window is narrow.

import type { ComponentChildren } from "preact";

export interface Column<T> {
  title: string;
  cell: (row: T) => ComponentChildren;
  number?: boolean;
  // A cell that takes the whole width of a card.
  wide?: boolean;
  // The column of buttons has a heading for screen readers alone.
  isActions?: boolean;
}

export function Table<T>({
  caption,
  columns,
  rows,
  id,
}: {
  caption: string;
  columns: Column<T>[];
  rows: readonly T[];
  id: (row: T) => string;
}) {
  return (
    <table class="table">
      <caption class="unseen">{caption}</caption>
      <thead>
        <tr>
          {columns.map(({ title, number, isActions }) => (
            <th key={title} scope="col" class={number ? "number" : undefined}>
              <span class={isActions ? "unseen" : undefined}>{title}</span>
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={id(row)}>
            {columns.map(({ title, cell, number, wide, isActions }) => (
              <td
                key={title}
                class={isActions ? "row-actions" : number ? "number" : wide ? "wide" : undefined}
                data-label={title}
              >
                {cell(row)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
