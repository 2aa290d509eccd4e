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
export function marking(
  table: SavedTable | undefined,
  chains: readonly string[],
  others: readonly string[],
): readonly string[] {
  const made = chains.filter(chain => !table?.has(chain) && others.some(command => command.startsWith(`-I ${chain} `)));
  if (made.length === 0) return [];
  const marks = [...(table ? [] : [mark]), ...made.map(chainMark)];
  return marks.filter(name => !table?.has(name)).map(name => `-N ${name}`);
}

export interface Leftover {
  readonly table: string;
  /** The built-in chains that tartan created and that no rule of ours needs. */
  readonly chains: readonly string[];
  /** tartan created the whole table. */
  readonly isTable: boolean;
}

/** @param chains the built-in ones, and whether a rule of ours needs them */
export function leftoverIn(
  name: string,
  table: SavedTable | undefined,
  chains: readonly { readonly name: string; readonly isWanted: boolean }[],
): Leftover | undefined {
  const made = chains.filter(chain => !chain.isWanted && table?.has(chainMark(chain.name))).map(chain => chain.name);
  const isTable = chains.every(chain => !chain.isWanted) && (table?.has(mark) ?? false);
  return made.length > 0 || isTable ? { table: name, chains: made, isTable } : undefined;
}

/** Runs after our rules are removed. A table or chain that others use by now stays, unmarked. */
export async function removeLeftover(
  { table, chains, isTable }: Leftover,
  program: IptablesProgram,
  run: RunCommand,
  signal: AbortSignal,
): Promise<void> {
  const restore = (...commands: readonly string[]): Promise<void> =>
    restoreTable(program, { table, commands }, run, signal);
  await restore(...chains.map(chain => `-X ${chainMark(chain)}`), ...(isTable ? [`-X ${mark}`] : []));
  const removals = [
    // iptables refuses this when the chain holds a rule, and on xtables, where built-in chains always exist.
    ...chains.map(chain => () => restore(`-X ${chain}`)),
    ...(isTable ? [() => removeEmptyTable(table, run, signal)] : []),
  ];
  for (const remove of removals) {
    try {
      await remove();
    } catch {
      signal.throwIfAborted();
    }
  }
}

/** Runs nft, because iptables removes no table. */
async function removeEmptyTable(table: string, run: RunCommand, signal: AbortSignal): Promise<void> {
  const text = await run('nft', ['list', 'table', 'ip', table], '', signal);
  if (/^table ip \w+ \{\s*\}\s*$/.test(text)) await run('nft', ['delete', 'table', 'ip', table], '', signal);
}
