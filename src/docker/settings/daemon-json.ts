/**
 * Edits the text of Docker's daemon.json: single members of the outermost object are set and removed, everything else
 * stays byte for byte, and a new member is formatted like the members beside it. Text that is not plain JSON is not
 * edited: dockerd refuses it too. Messages name the line and never show content, which may be secret.
 */
import { getNodeValue, parseTree, type Node, type ParseError } from 'jsonc-parser';
import { TartanError } from '../../lib/errors.js';

export type DaemonJsonValue =
  string | number | boolean | null | readonly DaemonJsonValue[] | { readonly [name: string]: DaemonJsonValue };

interface Member {
  readonly name: string;
  readonly value: unknown;
  readonly start: number;
  readonly nameEnd: number;
  readonly valueStart: number;
  readonly end: number;
}

interface Layout {
  /** The offset just after the opening brace. */
  readonly open: number;
  /** The offset of the closing brace. */
  readonly close: number;
  readonly members: readonly Member[];
}

/**
 * Reads the outermost members; of two with one name the last counts, as for dockerd.
 * @throws TartanError CONFIG_INVALID for text that is no JSON object
 */
export function readMembers(text: string, path: string): ReadonlyMap<string, unknown> {
  return new Map(layoutOf(text, path)?.members.map(({ name, value }) => [name, value]));
}

/** Sets a member. @throws TartanError CONFIG_INVALID */
export function withKey(text: string, key: string, value: DaemonJsonValue, path: string): string {
  const layout = layoutOf(text, path);
  const written = JSON.stringify(value);
  if (!layout) return `{\n  ${JSON.stringify(key)}: ${written}\n}\n`;
  const found = memberOf(layout, key, path);
  if (found)
    return isSame(found.value, value) ? text : text.slice(0, found.valueStart) + written + text.slice(found.end);
  const last = layout.members.at(-1);
  if (!last) return withFirst(text, layout, `${JSON.stringify(key)}: ${written}`);
  const before = layout.members.at(-2)?.end ?? layout.open;
  const gap = text.slice(before, last.start).replace(',', '');
  const colon = text.slice(last.nameEnd, last.valueStart);
  return `${text.slice(0, last.end)},${gap}${JSON.stringify(key)}${colon}${written}${text.slice(last.end)}`;
}

/** Compares two values of members; the order of the names in an object counts. */
export function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Removes a member: the reverse of `withKey`. @throws TartanError CONFIG_INVALID */
export function withoutKey(text: string, key: string, path: string): string {
  const layout = layoutOf(text, path);
  const found = memberOf(layout, key, path);
  if (!layout || !found) return text;
  const at = layout.members.indexOf(found);
  const [previous, next] = [layout.members[at - 1], layout.members[at + 1]];
  if (next) return text.slice(0, found.start) + text.slice(next.start);
  return text.slice(0, previous?.end ?? layout.open) + text.slice(found.end);
}

function withFirst(text: string, { open, close }: Layout, member: string): string {
  const inside = text.slice(open, close);
  const newline = text.includes('\r\n') ? '\r\n' : '\n';
  const end = inside.includes('\n') ? inside : newline;
  return `${text.slice(0, open)}${newline}  ${member}${end}${text.slice(close)}`;
}

function memberOf(layout: Layout | undefined, key: string, path: string): Member | undefined {
  const found = layout?.members.filter(({ name }) => name === key) ?? [];
  if (found.length > 1)
    throw new TartanError('CONFIG_INVALID', `${path} has '${key}' ${found.length} times: leave one of them`);
  return found[0];
}

const byteOrderMark = '\uFEFF';

/** @returns undefined for a file of nothing but blanks, which dockerd takes for an empty object */
function layoutOf(text: string, path: string): Layout | undefined {
  // One character replaces one character: the offsets stay.
  const body = text.startsWith(byteOrderMark) ? ` ${text.slice(1)}` : text;
  if (body.trim() === '') return undefined;
  const errors: ParseError[] = [];
  let root: Node | undefined;
  try {
    root = parseTree(body, errors, { disallowComments: true });
    JSON.parse(body);
  } catch {
    throw notJson(body, errors, path);
  }
  if (errors.length > 0) throw notJson(body, errors, path);
  if (root?.type !== 'object')
    throw new TartanError('CONFIG_INVALID', `${path} is not a JSON object: dockerd does not start with it either`);
  const end = root.offset + root.length;
  return { open: root.offset + 1, close: end - 1, members: (root.children ?? []).flatMap(memberAt) };
}

function memberAt({ children }: Node): readonly Member[] {
  const [name, value] = children ?? [];
  if (!name || !value) return [];
  const nameEnd = name.offset + name.length;
  const place = { start: name.offset, nameEnd, valueStart: value.offset, end: value.offset + value.length };
  const given: unknown = getNodeValue(value);
  return [{ name: String(name.value), value: given, ...place }];
}

function notJson(body: string, errors: readonly ParseError[], path: string): TartanError {
  const at = errors[0]?.offset;
  const line = at === undefined ? '' : ` (line ${body.slice(0, at).split('\n').length})`;
  return new TartanError(
    'CONFIG_INVALID',
    `${path} is not JSON${line}, comments are not allowed: put it right, dockerd does not start with it either`,
  );
}
