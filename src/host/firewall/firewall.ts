/**
 * Our packet filter rules, wherever they have to be. A pass looks once at what each kind of filter holds, decides what
 * goes where, and gives the steps that make it so. A kind that cannot be read keeps no other from its rules.
 */
import { readFile } from 'node:fs/promises';
import { messageOf } from '../../lib/errors.js';
import type { Log } from '../../lib/log.js';
import type { FirewallPlan } from '../../model/plan.js';
import { impossible, type Step } from '../step.js';
import { isAbsent, runCommand, type RunCommand } from './command.js';
import { Iptables } from './iptables.js';
import { Nftables } from './nftables.js';
import { placeFirewall } from './placement.js';
import { addBeforeRemove, nothingToDo, type FirewallSteps } from './steps.js';
import { foreignTables, otherVariant, saysTheSame, variantConflict } from './variants.js';

export interface FirewallOptions {
  readonly log: Log;
  readonly run?: RunCommand;
  /** Where the kernel names the tables of legacy iptables. */
  readonly legacyTablesFile?: string;
}

type Reading<T> =
  | { readonly state: 'there'; readonly found: T }
  | { readonly state: 'absent' }
  | { readonly state: 'broken'; readonly error: unknown };

export class Firewall {
  readonly #options: FirewallOptions;
  readonly #run: RunCommand;
  readonly #iptables: Iptables;
  readonly #nftables: Nftables;

  constructor(options: FirewallOptions) {
    this.#options = options;
    this.#run = options.run ?? runCommand;
    this.#iptables = new Iptables('iptables', this.#run, options.log);
    this.#nftables = new Nftables(this.#run);
  }

  /** @param plan undefined when nothing of ours is to stay */
  async steps(
    plan: FirewallPlan | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly steps: readonly Step[]; readonly conflicts: readonly string[] }> {
    const parts = await this.#parts(plan, signal);
    signal.throwIfAborted();
    return { steps: addBeforeRemove(parts), conflicts: parts.flatMap(part => part.conflicts) };
  }

  async #parts(plan: FirewallPlan | undefined, signal: AbortSignal): Promise<readonly FirewallSteps[]> {
    const [saved, nft] = await Promise.all([
      read(() => this.#iptables.save(signal)),
      read(() => this.#nftables.tables(signal)),
    ]);
    if (saved.state === 'absent' && nft.state === 'absent') return [withoutPrograms(plan)];
    // Where nothing is asked of it, an nft that does not work (a kernel without nftables) is as good as none.
    const asksNft = plan === undefined || plan.nftables || saved.state === 'absent';
    const tables: Reading<readonly string[]> = nft.state === 'broken' && !asksNft ? { state: 'absent' } : nft;
    const [text, names] = [foundIn(saved) ?? '', foundIn(tables) ?? []];
    const place = placeFirewall(plan, {
      iptables: saved.state === 'absent' ? undefined : text,
      nft: tables.state === 'absent' ? undefined : names,
    });
    return [
      { ...nothingToDo, conflicts: place.conflicts },
      await stepsOf('iptables', saved, () => this.#iptables.steps(place.iptables, text, signal)),
      await stepsOf('nftables', tables, () => this.#nftables.steps(place.nftables, names, signal)),
      saved.state === 'there' ? await this.#otherVariant(text, names, signal) : nothingToDo,
    ];
  }

  /** Rules of others there are named; ours, from before the host chose another variant, go. */
  async #otherVariant(text: string, nftTables: readonly string[], signal: AbortSignal): Promise<FirewallSteps> {
    const file = this.#options.legacyTablesFile ?? '/proc/net/ip_tables_names';
    const legacyTables = (await readFile(file, 'latin1').catch(() => '')).split('\n').filter(name => name !== '');
    const program = otherVariant(text, legacyTables, nftTables);
    if (!program) return nothingToDo;
    const other = new Iptables(program, this.#run, this.#options.log);
    const saved = foundIn(await read(() => other.save(signal)));
    if (saved === undefined || saysTheSame(saved, text)) return nothingToDo;
    const foreign = foreignTables(saved);
    const { conflicts, ...todo } = await other.steps(undefined, saved, signal);
    return { ...todo, conflicts: [...conflicts, ...(foreign.length > 0 ? [variantConflict(program, foreign)] : [])] };
  }
}

async function stepsOf(
  what: string,
  seen: Reading<unknown>,
  steps: () => Promise<FirewallSteps>,
): Promise<FirewallSteps> {
  if (seen.state === 'absent') return nothingToDo;
  const got = seen.state === 'broken' ? seen : await read(steps);
  if (got.state === 'there') return got.found;
  const reason = got.state === 'broken' ? messageOf(got.error) : 'the program is gone';
  return { ...nothingToDo, steps: [impossible(`read ${what}`, reason)] };
}

async function read<T>(at: () => Promise<T>): Promise<Reading<T>> {
  try {
    return { state: 'there', found: await at() };
  } catch (error) {
    return isAbsent(error) ? { state: 'absent' } : { state: 'broken', error };
  }
}

function foundIn<T>(seen: Reading<T>): T | undefined {
  return seen.state === 'there' ? seen.found : undefined;
}

/** Then nothing of ours can be there either. */
function withoutPrograms(plan: FirewallPlan | undefined): FirewallSteps {
  if (!plan || (!plan.forward && plan.masquerade === 'off')) return nothingToDo;
  const missing = 'there is no iptables and no nft program';
  if (plan.masquerade === 'off')
    return { ...nothingToDo, conflicts: [`${missing}: forward rules are not kept; install one of them`] };
  const reason = `${missing}; install one of them, or start with --ip-masq=false`;
  return { ...nothingToDo, steps: [impossible('masquerade', reason)] };
}
