/**
 * Tables and built-in chains that exist only because a rule of ours needed them: with iptables on nftables they appear
 * at the first use and would stay behind, empty. An empty chain of ours beside them, made in the same transaction,
 * remembers that they are of our making; when no rule of ours is wanted any more, what is empty goes.
 */
import type { RunCommand } from './command.js';
import type { SavedTable } from './save-text.js';

const mark = 'TARTAN-MADE';

function chainMark(chain: string): string {
  return `${mark}-${chain}`;
}

/** Commands that mark what the others, made in the same transaction, bring into being. */
export function marking(table: SavedTable | undefined, chain: string, others: readonly string[]): readonly string[] {
  if (table?.has(chain) || !others.some(command => command.startsWith(`-I ${chain} `))) return [];
  const marks = [...(table ? [] : [mark]), chainMark(chain)];
  return marks.filter(name => !table?.has(name)).map(name => `-N ${name}`);
}

export interface Leftover {
  readonly table: string;
  /** The built-in chain of our making, if it is. */
  readonly chain: string | undefined;
  /** The whole table is. */
  readonly isTable: boolean;
}

export function leftoverIn(name: string, table: SavedTable | undefined, chain: string): Leftover | undefined {
  const [ofChain, isTable] = [table?.has(chainMark(chain)) ?? false, table?.has(mark) ?? false];
  return ofChain || isTable ? { table: name, chain: ofChain ? chain : undefined, isTable } : undefined;
}

/** Once our rules are gone. What others use by now stays, unmarked. */
export async function removeLeftover(
  { table, chain, isTable }: Leftover,
  program: string,
  run: RunCommand,
  signal: AbortSignal,
): Promise<void> {
  const restore = async (...commands: readonly string[]): Promise<void> => {
    const text = [`*${table}`, ...commands, 'COMMIT', ''].join('\n');
    await run(`${program}-restore`, ['--noflush', '--wait=5'], text, signal);
  };
  const unmark = [...(chain === undefined ? [] : [`-X ${chainMark(chain)}`]), ...(isTable ? [`-X ${mark}`] : [])];
  await restore(...unmark);
  try {
    // Refused when it holds a rule, and by iptables on xtables, where built-in chains are always there.
    if (chain !== undefined) await restore(`-X ${chain}`);
    if (isTable) await removeEmptyTable(table, run, signal);
  } catch {
    signal.throwIfAborted();
  }
}

/** iptables itself removes no table. */
async function removeEmptyTable(table: string, run: RunCommand, signal: AbortSignal): Promise<void> {
  const text = await run('nft', ['list', 'table', 'ip', table], '', signal);
  if (/^table ip \w+ \{\s*\}\s*$/.test(text)) await run('nft', ['delete', 'table', 'ip', table], '', signal);
}
