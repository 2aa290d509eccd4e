/**
 * Keeps our own nftables table with the `nft` program. A pass lists it once and, when it is not as planned, runs one
 * transaction, which changes all of it or nothing.
 */
import type { RunCommand } from './command.js';
import { listOwnTable } from './listing.js';
import { diffTable, listedContent, ownChains, wantedContent, type NftContent, type OwnChain } from './nft-table.js';
import { nothingToDo, type FirewallSteps, type WantedRules } from './steps.js';

export class Nftables {
  readonly #run: RunCommand;
  /** Set for an nft that spells a rule otherwise than we do: what it lists for what we asked for. */
  #spelling: { readonly wanted: NftContent; readonly listed: NftContent } | undefined;
  /** The rules of ours that the first pass found: later ones find some twice, if nft spells them otherwise. */
  #kept: readonly OwnChain[] | undefined;

  constructor(run: RunCommand) {
    this.#run = run;
  }

  async steps({ parts, keeps }: WantedRules, tables: readonly string[], signal: AbortSignal): Promise<FirewallSteps> {
    const listing = tables.includes('tartan') ? await listOwnTable(this.#run, signal) : undefined;
    this.#kept = keeps ? (this.#kept ?? (listing ? ownChains(listing) : [])) : undefined;
    const wanted = wantedContent(parts, this.#kept);
    const { commands, conflicts } = diffTable(parts, listing, this.#kept);
    const isSpelled = listing && wanted === this.#spelling?.wanted && listedContent(listing) === this.#spelling.listed;
    if (commands.length === 0 || isSpelled) return { ...nothingToDo, conflicts };
    const run = async (): Promise<void> => {
      await this.#run('nft', ['-f', '-'], `${commands.join('\n')}\n`, signal);
      if (wanted !== '') await this.#recordSpelling(wanted, signal);
    };
    const step = { text: `nft ${commands.join('; ')}`, place: 'nft ip tartan', run };
    return { steps: wanted === '' ? [] : [step], removals: wanted === '' ? [step] : [], conflicts };
  }

  /** Runs right after our change: what is listed then, rule for rule, is what we asked for. */
  async #recordSpelling(wanted: NftContent, signal: AbortSignal): Promise<void> {
    const listed = listedContent(await listOwnTable(this.#run, signal));
    const isWhole = listed.split('\n').length === wanted.split('\n').length;
    this.#spelling = listed !== wanted && isWhole ? { wanted, listed } : undefined;
  }
}
