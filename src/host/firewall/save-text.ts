/**
 * Parses what `iptables-save` writes: the chains and rules of each table, a rule as its words. Nothing more is
 * interpreted; other lines of a table are kept unread.
 */

export interface SavedRule {
  /** The rule as written, without `-A CHAIN`. */
  readonly text: string;
  readonly words: readonly string[];
}

/** Splits its words when they are asked for: a host has thousands of rules, of which a pass looks at few. */
class ReadRule implements SavedRule {
  readonly text: string;
  #words: readonly string[] | undefined;

  constructor(text: string) {
    this.text = text;
  }

  get words(): readonly string[] {
    return (this.#words ??= splitWords(this.text));
  }
}

/** Rules by chain, in order. */
export type SavedTable = ReadonlyMap<string, readonly SavedRule[]>;

/** What iptables-save wrote, parsed once for all who read it in a pass. */
export interface SavedText {
  readonly text: string;
  readonly tables: ReadonlyMap<string, SavedTable>;
}

export function readSaveText(text: string): SavedText {
  return { text, tables: parseSaveText(text) };
}

export function parseSaveText(text: string): ReadonlyMap<string, SavedTable> {
  const tables = new Map<string, Map<string, SavedRule[]>>();
  let table = new Map<string, SavedRule[]>();
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      table = new Map();
      tables.set(line.slice(1).trim(), table);
    } else if (line.startsWith(':')) {
      const [chain] = line.slice(1).split(' ');
      if (chain) table.set(chain, []);
    } else {
      const match = /^-A (\S+) ?(.*)$/.exec(line);
      const [, chain = '', rule = ''] = match ?? [];
      if (match) table.get(chain)?.push(new ReadRule(rule));
    }
  }
  return tables;
}

/** Reads `ACCEPT` or `DROP` of a built-in chain that exists. */
export function policyOf(text: string, table: string, chain: string): string | undefined {
  const [, section = ''] = new RegExp(`^\\*${table}\\n((?::.*\\n)*)`, 'm').exec(text) ?? [];
  return new RegExp(`^:${chain} (\\w+)`, 'm').exec(section)?.[1];
}

/** Splits words as iptables-restore does: blanks separate, double quotes join, a backslash escapes a quote. */
export function splitWords(text: string): string[] {
  const words = text.match(/"(?:\\.|[^"\\])*"|[^\s"]+/g) ?? [];
  return words.map(word => (word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/g, '$1') : word));
}

/**
 * Returns one text for every spelling of a rule. An option with its values is a group; neither the order of groups nor
 * `-m MODULE` matters.
 */
export function canonicalRule(words: readonly string[]): string {
  return optionGroups(words)
    .filter(([option]) => option !== '-m')
    .map(group => group.join(' '))
    .sort()
    .join(' ');
}

/** Groups `! -s 10.5.0.0/16 -j ACCEPT` as [['! -s', '10.5.0.0/16'], ['-j', 'ACCEPT']]. */
export function optionGroups(words: readonly string[]): string[][] {
  const groups: string[][] = [];
  let negated = false;
  for (const word of words) {
    if (word === '!') {
      negated = true;
    } else if (word.startsWith('-')) {
      groups.push([negated ? `! ${word}` : word]);
      negated = false;
    } else groups.at(-1)?.push(word);
  }
  return groups;
}

export function targetOf(rule: SavedRule): string | undefined {
  return optionValue(rule, '-j') ?? optionValue(rule, '-g');
}

/** Returns the value of an option that is present and not negated. */
export function optionValue(rule: SavedRule, option: string): string | undefined {
  return optionGroups(rule.words).find(([name]) => name === option)?.[1];
}

const verdicts = ['ACCEPT', 'DROP', 'REJECT', 'RETURN', 'QUEUE', 'NFQUEUE'];
const optionsWithoutCondition = ['-j', '-g', '--comment', '--reject-with'];

/** Recognizes a rule that decides without any condition: the rules after it in its chain are never reached. */
export function endsChain(rule: SavedRule): boolean {
  if (!verdicts.includes(targetOf(rule) ?? '')) return false;
  return optionGroups(rule.words).every(
    ([option = '', value]) => optionsWithoutCondition.includes(option) || (option === '-m' && value === 'comment'),
  );
}
