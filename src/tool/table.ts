/**
 * Formats tables for people by cli-table3, without lines: two spaces separate the columns, no line ends in spaces.
 * Cells may come from etcd: control bytes do not reach the terminal.
 */
import { stripVTControlCharacters } from 'node:util';
import CliTable from 'cli-table3';
import { createColors } from 'picocolors';
import type { ToolIo } from './ports.js';

export type Output = 'table' | 'wide' | 'json';
export type Colour = 'good' | 'bad' | 'strong' | 'faint';
export type Cell = string | { readonly text: string; readonly colour: Colour };

export type Field = readonly [name: string, cell: Cell];

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => Cell;
  /** `-o table` leaves the column out. */
  readonly wide?: boolean;
}

export type Paint = (text: string, colour: Colour) => string;

/** Colours on a terminal only, and not where NO_COLOR forbids it. */
export function openPaint(io: Pick<ToolIo, 'isTty' | 'env'>): Paint {
  const colours = createColors(io.isTty && !io.env['NO_COLOR']);
  const by = { good: colours.green, bad: colours.yellow, strong: colours.bold, faint: colours.dim };
  return (text, colour) => by[colour](text);
}

export function formatTable<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  output: Exclude<Output, 'json'>,
  paint: Paint,
): string {
  const visible = columns.filter(column => output === 'wide' || column.wide !== true);
  const head = visible.map(column => paint(column.title, 'faint'));
  return formatGrid([head, ...rows.map(row => visible.map(column => formatCell(column.cell(row), paint)))]);
}

/** Formats names and their values, one line each. */
export function formatFields(fields: readonly Field[], paint: Paint): string {
  return formatGrid(fields.map(([name, cell]) => [paint(name, 'faint'), formatCell(cell, paint)]));
}

/** Formats seconds as the two largest units: 23h 59m. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0s';
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ');
}

export function withoutControls(text: string): string {
  return text.replace(/\p{Cc}/gu, '?');
}

function formatCell(cell: Cell, paint: Paint): string {
  return typeof cell === 'string' ? withoutControls(cell) : paint(withoutControls(cell.text), cell.colour);
}

/** cli-table3 takes half a minute for 5,000 rows of ten cells, so longer tables are padded here. */
const shortRows = 100;

function formatGrid(rows: readonly (readonly string[])[]): string {
  const lines = rows.length > shortRows ? padRows(rows) : layRows(rows);
  return lines.map(line => `${line.trimEnd()}\n`).join('');
}

function padRows(rows: readonly (readonly string[])[]): readonly string[] {
  const widths: number[] = [];
  const widthOf = (cell: string): number => stripVTControlCharacters(cell).length;
  for (const row of rows) for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, widthOf(cell));
  const pad = (cell: string, at: number): string => cell + ' '.repeat((widths[at] ?? 0) - widthOf(cell));
  return rows.map(row => row.map(pad).join('  '));
}

function layRows(rows: readonly (readonly string[])[]): readonly string[] {
  const bare = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '' };
  const none = { 'bottom-left': '', 'bottom-right': '', left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '' };
  const table = new CliTable({
    chars: { ...bare, ...none, 'right-mid': '', middle: '  ' },
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
  });
  table.push(...rows.map(row => [...row]));
  return table.toString().split('\n');
}
