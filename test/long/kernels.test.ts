/**
 * The engine kernel on the kernels that Debian packages, each booted under qemu: the suites of the engine run there as they
 * do here. Where the kernel is too old for `auto` or lacks a module, packets go by user space and the engine says why.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GuestResult } from '../support/guest-reporter.js';
import { guestKernels, makeGuestImages, removeGuestImages, runGuest, type GuestReport } from '../support/guest.js';

const seconds = Number(process.env['TARTAN_GUEST_SECONDS'] ?? 600);
const chosen = process.env['TARTAN_KERNELS']?.split(',');
const guestsAtOnce = 2;

interface Guest {
  readonly kernel: string;
  readonly title: string;
  readonly tests: readonly string[];
  readonly without: readonly string[];
  /** What cannot be so on this kernel: the beginning of an error, or the name of a test. */
  readonly allowed: readonly string[];
}

const suites = ['programs', 'engine', 'packets', 'devices'].map(name => `test/integration/kernel-${name}.test.ts`);
const lacking = 'test/long/guest-lacking.test.ts';
/** No tunnel key can be made in a trial before Linux 6.0; `bpf_check_mtu`, which knows that a link is gone, is of 5.12. */
const before6 = [
  'EPROTONOSUPPORT: Protocol not supported, bpf_skb_set_tunnel_key',
  'outbound > a link that is gone takes nothing',
];

const guests: readonly Guest[] = [...guestKernels()]
  .filter(([name]) => chosen?.includes(name) ?? true)
  .flatMap(([kernel, version]) => {
    const isOld = kernel.startsWith('bullseye');
    const whole = {
      kernel,
      title: version,
      without: [],
      allowed: isOld ? before6 : [],
      tests: [...suites, ...(isOld ? [lacking] : [])],
    };
    const lacks = ['vxlan', 'cls_bpf'].map(module => ({
      ...whole,
      title: `${version}, no ${module}`,
      without: [module],
      tests: [lacking],
    }));
    return kernel === 'bookworm-cloud-amd64' ? [whole, ...lacks] : [whole];
  });
const rows: string[] = [];
const reports = new Map<Guest, Promise<GuestReport>>();

beforeAll(async () => {
  await makeGuestImages();
  const running = Array.from({ length: guestsAtOnce }, () => Promise.resolve() as Promise<unknown>);
  for (const [at, guest] of guests.entries()) {
    const before = running[at % guestsAtOnce];
    const report = (async () => {
      await before;
      return runGuest({ ...guest, seconds });
    })();
    running[at % guestsAtOnce] = report.catch(() => {});
    reports.set(guest, report);
  }
}, 300_000);

afterAll(async () => {
  await Promise.allSettled(reports.values());
  removeGuestImages();
  process.stdout.write(`\n${rows.join('\n')}\n`);
}, 600_000);

test('every kernel of Debian is there', () => expect(guestKernels().size).toBe(6));

/** A step is a test file: each of its tests must pass, and there must be some. */
function judge({ title, allowed }: Guest, step: string, { results, shown }: GuestReport): void {
  const own = results.filter(({ file }) => file === step);
  const isAllowed = ({ name, errors }: GuestResult): boolean =>
    allowed.some(text => name === text || errors?.[0]?.startsWith(text));
  const passed = own.filter(({ state }) => state === 'passed');
  const failed = own.filter(one => one.state === 'failed' && !isAllowed(one));
  const untried = own.filter(one => one.state === 'failed' && isAllowed(one));
  const isWhole = passed.length > 0 && results.some(({ state }) => state === 'end');
  const sums = `${passed.length} passed, ${failed.length} failed${untried.length === 0 ? '' : `, ${untried.length} not of this kernel`}`;
  const result = isWhole ? sums : `${sums}; it did not come to its end`;
  rows.push([title.padEnd(52), step.replace(/^.*\/|\.test\.ts$/g, '').padEnd(16), result].join('  '));
  for (const { name, errors } of failed) rows.push(`    ${name}: ${errors?.[0]?.split('\n')[0] ?? ''}`);
  const told = failed.map(({ name, errors }) => `${name}\n${errors?.join('\n') ?? ''}`);
  expect(told.join('\n\n'), isWhole ? sums : shown).toBe('');
  expect(isWhole, `${result}\n${shown}`).toBe(true);
}

describe.each(guests.map(guest => [guest.title, guest] as const))('%s', (_, guest) => {
  let report: GuestReport;
  beforeAll(
    async () => {
      report = (await reports.get(guest)) ?? { results: [], shown: 'it was not booted' };
    },
    seconds * 1000 * guests.length + 60_000,
  );

  test.each(guest.tests)('%s', step => judge(guest, step, report));
});
