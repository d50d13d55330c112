/**
 * Tables for people.
 *
 * @module
 */

/**
 * Prints rows under a title, in columns.
 *
 * @param title What they are.
 * @param head The columns' names.
 * @param rows The rows; `null` and `undefined` become a dash.
 */
export function printTable(title: string, head: readonly string[], rows: readonly (readonly unknown[])[]): void {
  console.log(`${title} (${rows.length})`);
  if (rows.length === 0) return;
  const lines = [head, ...rows].map((row) => row.map((cell) => `${cell ?? "-"}`));
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  for (const line of lines) {
    console.log(`  ${line.map((cell, column) => cell.padEnd(widths[column]!)).join("  ")}`.trimEnd());
  }
}
