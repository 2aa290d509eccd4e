/**
 * Reads what `iptables-save` writes: chains and rules of each table, a rule as its words. Nothing is interpreted
 * beyond that; a line of a table that this program has no business with is carried along unread.
 */

export interface SavedRule {
  /** As written, without `-A CHAIN`. */
  readonly text: string;
  readonly words: readonly string[];
}

/** Rules by chain, in order. */
export type SavedTable = ReadonlyMap<string, readonly SavedRule[]>;

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
      if (match) table.get(chain)?.push({ text: rule, words: splitWords(rule) });
    }
  }
  return tables;
}

/** `ACCEPT` or `DROP` of a built-in chain that is there. */
export function policyOf(text: string, table: string, chain: string): string | undefined {
  const [, section = ''] = new RegExp(`^\\*${table}\\n((?::.*\\n)*)`, 'm').exec(text) ?? [];
  return new RegExp(`^:${chain} (\\w+)`, 'm').exec(section)?.[1];
}

/** Words as iptables-restore splits them: blanks apart, double quotes together, a backslash before a quote. */
export function splitWords(text: string): string[] {
  const words = text.match(/"(?:\\.|[^"\\])*"|[^\s"]+/g) ?? [];
  return words.map(word => (word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/g, '$1') : word));
}

/**
 * One text for every spelling of a rule: an option with its values is a group, and neither the order of groups nor
 * `-m MODULE` says anything more.
 */
export function canonicalRule(words: readonly string[]): string {
  return optionGroups(words)
    .filter(([option]) => option !== '-m')
    .map(group => group.join(' '))
    .sort()
    .join(' ');
}

/** `! -s 10.5.0.0/16 -j ACCEPT` is [['! -s', '10.5.0.0/16'], ['-j', 'ACCEPT']]. */
function optionGroups(words: readonly string[]): string[][] {
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

/** The value of an option that is there and not negated. */
export function optionValue(rule: SavedRule, option: string): string | undefined {
  return optionGroups(rule.words).find(([name]) => name === option)?.[1];
}

const verdicts = ['ACCEPT', 'DROP', 'REJECT', 'RETURN', 'QUEUE', 'NFQUEUE'];
const optionsWithoutCondition = ['-j', '-g', '--comment', '--reject-with'];

/** A rule without any condition that decides: what comes after it in its chain is never reached. */
export function endsChain(rule: SavedRule): boolean {
  if (!verdicts.includes(targetOf(rule) ?? '')) return false;
  return optionGroups(rule.words).every(
    ([option = '', value]) => optionsWithoutCondition.includes(option) || (option === '-m' && value === 'comment'),
  );
}
