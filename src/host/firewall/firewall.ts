/**
 * Keeps our packet filter rules with iptables and nft. A pass lists each kind of filter once, decides which rules go
 * where, and returns the steps. A kind that cannot be read does not keep another from its rules.
 */
import { factValue, known, type Fact } from '../../lib/fact.js';
import type { Log } from '../../lib/log.js';
import type { FirewallPlan } from '../../model/plan.js';
import { impossible, type Step } from '../step.js';
import { programFact, runCommand, type RunCommand } from './command.js';
import { flannelConflicts } from './flannel.js';
import { dropConflicts } from './foreign-tables.js';
import { Iptables } from './iptables.js';
import {
  foreignTables,
  ipv4Tables,
  legacyTables,
  listOtherVariant,
  listTables,
  saveRules,
  variantConflict,
} from './listing.js';
import { Nftables } from './nftables.js';
import { placeFirewall } from './placement.js';
import { readSaveText } from './save-text.js';
import { addBeforeRemove, nothingToDo, type FirewallSteps, type WantedRules } from './steps.js';

export interface FirewallOptions {
  readonly log: Log;
  readonly run?: RunCommand;
  /** The file in which the kernel names the tables of legacy iptables. */
  readonly legacyTablesFile?: string;
}

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

  /** Whether the kernel tells of every change of rules; it does not tell of those of legacy iptables. */
  get isHeard(): boolean {
    return legacyTables(this.#options.legacyTablesFile).length === 0;
  }

  /**
   * @param parts none when no rule of ours is to stay
   * @param keeps see FirewallContext
   */
  async steps(
    parts: readonly FirewallPlan[],
    signal: AbortSignal,
    keeps = false,
  ): Promise<{ readonly steps: readonly Step[]; readonly conflicts: readonly string[] }> {
    const kinds = await this.#kinds({ parts, keeps }, signal);
    signal.throwIfAborted();
    return { steps: addBeforeRemove(kinds), conflicts: kinds.flatMap(kind => kind.conflicts) };
  }

  async #kinds({ parts, keeps }: WantedRules, signal: AbortSignal): Promise<readonly FirewallSteps[]> {
    const [saved, listed] = await Promise.all([
      programFact(() => saveRules('iptables', this.#run, signal)),
      programFact(() => listTables(this.#run, signal)),
    ]);
    if (isMissing(saved) && isMissing(listed)) return [withoutPrograms(parts)];
    // An nft that does not work (a kernel without nftables) counts as none where it is not needed.
    const needsNft = parts.length === 0 || parts.some(plan => plan.nftables) || isMissing(saved);
    const tables: Fact<readonly string[] | undefined> = listed.known || needsNft ? listed : known(undefined);
    const listing = readSaveText(factValue(saved) ?? '');
    const [names, allNames] = [ipv4Tables(factValue(tables) ?? []), factValue(listed) ?? []];
    const place = placeFirewall(parts, {
      iptables: isMissing(saved) ? undefined : listing,
      nft: isMissing(tables) ? undefined : names,
    });
    const hang = !listed.known && !needsNft && listed.hangs ? [listed.why] : [];
    return [
      {
        ...nothingToDo,
        conflicts: [...place.conflicts, ...hang, ...(parts.length > 0 ? flannelConflicts(listing, allNames) : [])],
      },
      {
        ...nothingToDo,
        conflicts: await dropConflicts(parts, allNames, isMissing(saved) ? undefined : listing.text, this.#run, signal),
      },
      await stepsOf('iptables', saved, () => this.#iptables.steps({ parts: place.iptables, keeps }, listing, signal)),
      await stepsOf('nftables', tables, () => this.#nftables.steps({ parts: place.nftables, keeps }, names, signal)),
      factValue(saved) === undefined ? nothingToDo : await this.#otherVariant(listing.text, names, keeps, signal),
    ];
  }

  /** Names the rules of others in the other variant; removes ours, which stem from before the host chose this one. */
  async #otherVariant(
    text: string,
    nftTables: readonly string[],
    keeps: boolean,
    signal: AbortSignal,
  ): Promise<FirewallSteps> {
    const { legacyTablesFile, log } = this.#options;
    const other = factValue(await listOtherVariant(text, nftTables, this.#run, signal, legacyTablesFile));
    if (!other) return nothingToDo;
    const listing = readSaveText(other.text);
    const foreign = foreignTables(listing);
    const iptables = new Iptables(other.program, this.#run, log);
    const { conflicts, ...todo } = await iptables.steps({ parts: [], keeps }, listing, signal);
    const more = foreign.length > 0 ? [variantConflict(other.program, foreign)] : [];
    return { ...todo, conflicts: [...conflicts, ...more] };
  }
}

async function stepsOf(
  what: string,
  listing: Fact<unknown>,
  steps: () => Promise<FirewallSteps>,
): Promise<FirewallSteps> {
  if (isMissing(listing)) return nothingToDo;
  const fact = listing.known ? await programFact(steps) : listing;
  if (fact.known && fact.value) return fact.value;
  return { ...nothingToDo, steps: [impossible(`read ${what}`, fact.known ? 'the program is gone' : fact.why)] };
}

function isMissing(listing: Fact<unknown>): boolean {
  return listing.known && listing.value === undefined;
}

/** Without programs no rule of ours can exist either. */
function withoutPrograms(parts: readonly FirewallPlan[]): FirewallSteps {
  if (!parts.some(plan => plan.forward || plan.masquerade !== 'off')) return nothingToDo;
  const missing = 'there is no iptables and no nft program';
  if (parts.every(plan => plan.masquerade === 'off'))
    return { ...nothingToDo, conflicts: [`${missing}: forward rules are not kept; install one of them`] };
  const reason = `${missing}; install one of them, or start with --ip-masq=false`;
  return { ...nothingToDo, steps: [impossible('masquerade', reason)] };
}
