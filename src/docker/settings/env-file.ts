/**
 * Reads a file of variables as flannel does (godotenv): `KEY=value`, `KEY: value`, `export KEY = "value" # comment`,
 * values in quotes over several lines, `$OTHER` of the same file; the last of equal names counts. A line that is no
 * variable is passed over. `withVariables` writes variables of ours and keeps those of others.
 */

interface Statement {
  /** undefined for a comment. */
  readonly name?: string;
  readonly value: string;
  /** As it stands in the file, with its line feed. */
  readonly text: string;
}

export function readVariables(text: string): ReadonlyMap<string, string> {
  const variables = new Map<string, string>();
  for (const { name, value } of statements(text, variables)) if (name !== undefined) variables.set(name, value);
  return variables;
}

/**
 * @param ours whole lines
 * @param names of the variables that are ours, also where `ours` has them not
 * @returns our lines, then the variables and comments of others that `before` has
 */
export function withVariables(before: string | undefined, ours: string, names: readonly string[]): string {
  const others = [...statements(before ?? '', new Map())].filter(
    ({ name }) => name === undefined || !names.includes(name),
  );
  // Comments alone are of nobody's variables.
  if (!others.some(({ name }) => name !== undefined)) return ours;
  return ours + others.map(({ text }) => (text.endsWith('\n') ? text : `${text}\n`)).join('');
}

const assignment = /(?:export[\t\v\f\r ]+)?([\p{L}\p{N}_.][\p{L}\p{N}_.\t\v\f\r ]*?)[\t\v\f\r ]*[=:][\t\v\f\r ]*/uy;
const quotedValue = /(["'])((?:(?!\1)[^\\]|\\[^])*)\1(?:[\t\v\f\r ]*\n)?/y;
const plainValue = /([^\r\n]*)(?:\r?\n)?/y;

/** @param variables those before this statement, which later ones may name */
function* statements(text: string, variables: ReadonlyMap<string, string>): Generator<Statement> {
  for (let at = 0; ;) {
    at += /^\s*/.exec(text.slice(at))?.[0].length ?? 0;
    if (at >= text.length) return;
    const name = matchAt(assignment, text, at);
    const line = matchAt(plainValue, text, at)?.[0] ?? '';
    if (text[at] === '#') yield { value: '', text: line };
    const valueAt = at + (name?.[0].length ?? 0);
    const value = name && text[at] !== '#' ? valueOf(text, valueAt, variables) : undefined;
    const end = value ? valueAt + value.length : at + line.length;
    if (value && name?.[1] !== undefined) yield { name: name[1], value: value.value, text: text.slice(at, end) };
    at = end;
  }
}

/** @returns undefined for a quote that is never closed */
function valueOf(
  text: string,
  at: number,
  variables: ReadonlyMap<string, string>,
): { readonly value: string; readonly length: number } | undefined {
  const expand = (value: string): string =>
    value.replace(/\\?\$\{?([A-Z0-9_]+)\}?/g, (whole, name: string) =>
      whole.startsWith('\\') ? whole.slice(1) : (variables.get(name) ?? ''),
    );
  if (text[at] === '"' || text[at] === "'") {
    const [whole, quote, inner = ''] = matchAt(quotedValue, text, at) ?? [];
    if (whole === undefined) return undefined;
    const unescaped = inner.replace(/\\(n|r|[^$])/g, (_, one: string) => ({ n: '\n', r: '\r' })[one] ?? one);
    return { value: quote === '"' ? expand(unescaped) : inner, length: whole.length };
  }
  const [whole = '', line = ''] = matchAt(plainValue, text, at) ?? [];
  return { value: expand(line.replace(/\s#.*$/, '').trim()), length: whole.length };
}

function matchAt(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}
