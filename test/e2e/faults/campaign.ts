/**
 * A lab and the faults that befall it, one after another. It goes on by itself; whoever wants to know asks for the
 * result of one fault. A case that fails is repaired, so that the next one starts from a sound lab.
 */
import { messageOf } from '../../../src/lib/errors.js';
import { Scope } from '../../../src/lib/scope.js';
import type { Fault } from './fault.js';
import { FaultLab, type FaultLabOptions } from './lab.js';
import { validate, type Bounds } from './validator.js';

export const ttlSeconds = 3;

export const bounds: Bounds = {
  // A second, and what a look every 100 ms and a busy machine add.
  eventMs: 1500,
  staleMs: 65_000,
  quarantineMs: 7 * ttlSeconds * 1000,
  residentBytes: 300e6,
  descriptors: 100,
  logBytesPerSecond: 4096,
  cpuShare: 0.7,
};

export class Campaign {
  readonly name: string;
  readonly faults: readonly Fault[];
  readonly #options: FaultLabOptions;
  readonly #scope = new Scope((name, error) => process.stderr.write(`closing ${name}: ${messageOf(error)}\n`));
  readonly #results: Promise<void>[] = [];
  #said = 0;

  constructor(name: string, options: FaultLabOptions, faults: readonly Fault[]) {
    this.name = name;
    this.#options = options;
    this.faults = faults;
  }

  start(): void {
    const opening = FaultLab.open(this.#scope, this.#options);
    let before: Promise<unknown> = opening;
    for (const fault of this.faults) {
      const result = before.then(async () => this.#one(await opening, fault));
      this.#results.push(result);
      before = result.catch(async () => (await opening).repair().catch(() => {}));
    }
  }

  /** Rejects with all that was wrong while the fault of that index lasted. */
  async result(index: number): Promise<void> {
    await this.#results[index];
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#results);
    await this.#scope.close();
  }

  async #one(lab: FaultLab, fault: Fault): Promise<void> {
    const troubles = await lab.run(fault);
    const broken = validate(lab.log.lines, bounds);
    const fresh = broken.slice(this.#said).map(({ invariant, atMs, what }) => `${invariant} at ${atMs} ms: ${what}`);
    this.#said = broken.length;
    const wrong = [...troubles, ...fresh];
    if (wrong.length > 0) throw new Error(`${wrong.join('\n')}\n${lab.lastWords()}`);
  }
}
