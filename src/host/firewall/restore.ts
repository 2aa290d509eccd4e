/** Changes a table of iptables by one `iptables-restore`, which makes all of its commands or none. */
import type { RunCommand } from './command.js';
import type { IptablesProgram } from './listing.js';

export interface TableCommands {
  readonly table: string;
  readonly commands: readonly string[];
}

/** Formats the input of iptables-restore. */
export function restoreText({ table, commands }: TableCommands): string {
  return [`*${table}`, ...commands, 'COMMIT', ''].join('\n');
}

/** @throws an Error of the program that refused */
export async function restoreTable(
  program: IptablesProgram,
  change: TableCommands,
  run: RunCommand,
  signal: AbortSignal,
): Promise<void> {
  await run(`${program}-restore`, ['--noflush', '--wait=4'], restoreText(change), signal);
}
