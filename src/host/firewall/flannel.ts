/**
 * The rules of flannel that stay behind when its daemon ends: two chains of iptables with the jumps to them, behind either
 * variant, and a table of nftables. They are named, and removed only when somebody asks for that.
 */
import { factValue } from '../../lib/fact.js';
import { isAbsent, programFact, type RunCommand } from './command.js';
import { legacyTables, listTables, saveRules } from './listing.js';
import { restoreTable } from './restore.js';
import { parseSaveText, targetOf, type SavedTable, type SavedText } from './save-text.js';

const chains = [
  ['nat', 'FLANNEL-POSTRTG'],
  ['filter', 'FLANNEL-FWD'],
] as const;
const nftTable = 'ip flannel-ipv4';

/** @param nftTables family and name of each nftables table */
export function flannelConflicts({ tables }: SavedText, nftTables: readonly string[]): readonly string[] {
  const found = [
    ...chains.filter(([table, chain]) => tables.get(table)?.has(chain)).map(words => words.join(' ')),
    ...nftTables.filter(table => table === nftTable),
  ];
  if (found.length === 0) return [];
  return [
    `rule_leftover ${found.join(', ')}: rules of flannel are here, and masquerade or accept what tartand does not; where no flanneld runs, remove them with: tartan cleanup --flannel`,
  ];
}

/** @returns one line for each thing that was removed. @throws an Error of the program that refused */
export async function removeFlannelRules(
  run: RunCommand,
  signal: AbortSignal,
  legacyTablesFile?: string,
): Promise<readonly string[]> {
  const removed: string[] = [];
  const hasLegacy = legacyTables(legacyTablesFile).length > 0;
  for (const program of ['iptables-nft', 'iptables-legacy'] as const) {
    if (program === 'iptables-legacy' && !hasLegacy) continue;
    const text = await saveRules(program, run, signal).catch((error: unknown) => {
      if (isAbsent(error)) return '';
      throw error;
    });
    const saved = parseSaveText(text);
    for (const [table, chain] of chains) {
      const commands = removalOf(saved.get(table), chain);
      if (commands.length === 0) continue;
      await restoreTable(program, { table, commands }, run, signal);
      removed.push(`by ${program}: ${table} ${chain} and the jumps to it`);
    }
  }
  const tables = await programFact(() => listTables(run, signal));
  if (factValue(tables)?.includes(nftTable)) {
    await run('nft', ['delete', 'table', ...nftTable.split(' ')], '', signal);
    removed.push(`by nft: table ${nftTable}`);
  }
  return removed;
}

function removalOf(table: SavedTable | undefined, chain: string): readonly string[] {
  if (!table?.has(chain)) return [];
  const jumps = [...table].flatMap(([from, rules]) =>
    rules.filter(rule => targetOf(rule) === chain).map(rule => `-D ${from} ${rule.text}`),
  );
  return [...jumps, `-F ${chain}`, `-X ${chain}`];
}
