/**
 * Removes the tables and built-in chains that exist only because a rule of ours needed them: iptables on nftables
 * creates them at the first use and leaves them behind, empty. An empty chain of ours beside them, made in the same
 * transaction, marks them as ours. The empty ones are removed once no rule of ours is wanted any more.
 */
import type { RunCommand } from './command.js';
import type { IptablesProgram } from './listing.js';
import { restoreTable } from './restore.js';
import type { SavedTable } from './save-text.js';

const mark = 'TARTAN-MADE';

function chainMark(chain: string): string {
  return `${mark}-${chain}`;
}

/** Returns the commands that mark what the other commands create, for the same transaction. */
export function marking(table: SavedTable | undefined, chain: string, others: readonly string[]): readonly string[] {
  if (table?.has(chain) || !others.some(command => command.startsWith(`-I ${chain} `))) return [];
  const marks = [...(table ? [] : [mark]), chainMark(chain)];
  return marks.filter(name => !table?.has(name)).map(name => `-N ${name}`);
}

export interface Leftover {
  readonly table: string;
  /** The built-in chain, if tartan created it. */
  readonly chain: string | undefined;
  /** tartan created the whole table. */
  readonly isTable: boolean;
}

export function leftoverIn(name: string, table: SavedTable | undefined, chain: string): Leftover | undefined {
  const [ofChain, isTable] = [table?.has(chainMark(chain)) ?? false, table?.has(mark) ?? false];
  return ofChain || isTable ? { table: name, chain: ofChain ? chain : undefined, isTable } : undefined;
}

/** Runs after our rules are removed. A table or chain that others use by now stays, unmarked. */
export async function removeLeftover(
  { table, chain, isTable }: Leftover,
  program: IptablesProgram,
  run: RunCommand,
  signal: AbortSignal,
): Promise<void> {
  const restore = (...commands: readonly string[]): Promise<void> =>
    restoreTable(program, { table, commands }, run, signal);
  const unmark = [...(chain === undefined ? [] : [`-X ${chainMark(chain)}`]), ...(isTable ? [`-X ${mark}`] : [])];
  await restore(...unmark);
  try {
    // iptables refuses this when the chain holds a rule, and on xtables, where built-in chains always exist.
    if (chain !== undefined) await restore(`-X ${chain}`);
    if (isTable) await removeEmptyTable(table, run, signal);
  } catch {
    signal.throwIfAborted();
  }
}

/** Runs nft, because iptables removes no table. */
async function removeEmptyTable(table: string, run: RunCommand, signal: AbortSignal): Promise<void> {
  const text = await run('nft', ['list', 'table', 'ip', table], '', signal);
  if (/^table ip \w+ \{\s*\}\s*$/.test(text)) await run('nft', ['delete', 'table', 'ip', table], '', signal);
}
