/**
 * Keeps our rules with the iptables programs, whichever kernel interface is behind them (nft or legacy). A pass runs
 * nothing when all is as planned, else one `iptables-restore --noflush` for each table, which changes all of it or
 * nothing. The lock of iptables (`--wait`) keeps several daemons on a machine apart.
 */
import type { Log } from '../../lib/log.js';
import type { Step } from '../step.js';
import { isAbsent, type RunCommand } from './command.js';
import { saveRules, type IptablesProgram } from './listing.js';
import { restoreTable } from './restore.js';
import { diffFirewall, type TableChange } from './rules.js';
import { parseSaveText, type SavedTable, type SavedText } from './save-text.js';
import type { FirewallSteps, WantedRules } from './steps.js';
import { removeLeftover } from './leftovers.js';

export class Iptables {
  readonly #program: IptablesProgram;
  readonly #run: RunCommand;
  readonly #log: Log;
  #randomFully = true;

  constructor(program: IptablesProgram, run: RunCommand, log: Log) {
    this.#program = program;
    this.#run = run;
    this.#log = log;
  }

  /**
   * @param listing what `saveRules` returned just now
   */
  async steps(want: WantedRules, listing: SavedText, signal: AbortSignal): Promise<FirewallSteps> {
    const { parts, keeps } = want;
    const context = { randomFully: this.#randomFully, keeps };
    const { text, tables: listed } = listing;
    const first = diffFirewall(parts, listed, context);
    const saved = text.includes('(nf_tables)') ? await this.#existing(listed, first.changes, signal) : listed;
    const { changes, leftovers, conflicts } = saved === listed ? first : diffFirewall(parts, saved, context);
    const emptied = leftovers.map(leftover => ({
      text: `${this.#program} -t ${leftover.table}: what was made for our rules, as far as it is empty`,
      run: () => removeLeftover(leftover, this.#program, this.#run, signal),
    }));
    const steps = (wanted: boolean): readonly Step[] =>
      changes.filter(change => adds(change) === wanted).map(change => this.#step(change, want, signal));
    return { steps: steps(true), removals: [...steps(false), ...emptied], conflicts };
  }

  /**
   * On nftables iptables-save lists every built-in chain of a table, whether it exists or not. A chain that only our
   * rule creates must be marked as ours, so this removes chains that do not exist from the listing.
   */
  async #existing(
    saved: ReadonlyMap<string, SavedTable>,
    changes: readonly TableChange[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, SavedTable>> {
    const existing = new Map(saved);
    for (const { table, builtIns } of changes)
      for (const builtIn of builtIns) {
        if (saved.get(table)?.get(builtIn)?.length !== 0) continue;
        try {
          await this.#run('nft', ['list', 'chain', 'ip', table, builtIn], '', signal);
        } catch (error) {
          signal.throwIfAborted();
          if (isAbsent(error)) continue;
          const others = [...(existing.get(table) ?? [])].filter(([chain]) => chain !== builtIn);
          existing.set(table, new Map(others));
        }
      }
    return existing;
  }

  #step(change: TableChange, want: WantedRules, signal: AbortSignal): Step {
    return {
      text: change.commands.map(command => `${this.#program} -t ${change.table} ${command}`).join('; '),
      place: `${this.#program} ${change.table} ${chainsOf(change).join(' ')}`,
      run: async () => {
        try {
          await restoreTable(this.#program, change, this.#run, signal);
        } catch (error) {
          if (!change.commands.some(command => command.includes('--random-fully'))) throw error;
          await this.#withoutRandom(change, want, signal);
        }
      },
    };
  }

  /** Serves iptables before 1.6.2 and Linux before 3.13: ports are chosen less randomly, all else is the same. */
  async #withoutRandom(refused: TableChange, want: WantedRules, signal: AbortSignal): Promise<void> {
    const saved = parseSaveText(await saveRules(this.#program, this.#run, signal));
    const { changes } = diffFirewall(want.parts, saved, { randomFully: false, keeps: want.keeps });
    const change = changes.find(({ table }) => table === refused.table);
    if (change) await restoreTable(this.#program, change, this.#run, signal);
    this.#randomFully = false;
    this.#log.info('firewall.not_random', 'iptables refuses --random-fully: masquerading goes on without it');
  }
}

/** The chains whose rules change, in order. */
function chainsOf({ commands }: TableChange): readonly string[] {
  return [...new Set(commands.flatMap(command => /^-[ID] (\S+)/.exec(command)?.[1] ?? []))];
}

function adds(change: TableChange): boolean {
  return change.commands.some(command => command.startsWith('-I '));
}
