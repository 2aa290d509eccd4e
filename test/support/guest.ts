/**
 * Boots a kernel that Debian packages under qemu, in software alone, and runs test files of this tree in it: what they
 * need is on a disk that guest-image.sh makes. A guest has two processors, no network, and ends by itself or by the time.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestResult } from './guest-reporter.js';
import { attempt, root, run } from './tools.js';

const qemu = join(root, '.cache/qemu/usr');
const images = join(root, '.cache/guest');

export interface GuestOptions {
  /** A directory of .cache/kernels. */
  readonly kernel: string;
  readonly tests: readonly string[];
  /** Modules that the guest does not have. */
  readonly without?: readonly string[];
  readonly seconds: number;
}

export interface GuestReport {
  readonly results: readonly GuestResult[];
  /** The last of what the guest showed. */
  readonly shown: string;
}

/** Kernels that set-up unpacked, and their packages with versions. */
export function guestKernels(): ReadonlyMap<string, string> {
  const folder = join(root, '.cache/kernels');
  const names = existsSync(folder) ? readdirSync(folder).sort() : [];
  const stamp = (name: string): string => join(folder, name, '.unpacked');
  return new Map(
    names.filter(name => existsSync(stamp(name))).map(name => [name, readFileSync(stamp(name), 'utf8').trim()]),
  );
}

/** Packs this tree as it is now. */
export async function makeGuestImages(): Promise<void> {
  await run(['bash', join(root, 'test/support/guest-image.sh'), images], { timeoutMs: 300_000 });
}

export function removeGuestImages(): void {
  rmSync(images, { recursive: true, force: true });
}

export async function runGuest(o: GuestOptions): Promise<GuestReport> {
  const scratch = mkdtempSync(join(tmpdir(), `tartan-guest-${process.pid}-`));
  const [screen, lines] = [join(scratch, 'screen'), join(scratch, 'results')];
  try {
    // It ends though this process has died.
    const bounded = ['env', `TMPDIR=${scratch}`, 'timeout', '-s', 'KILL', `${o.seconds}`, ...command(o, screen, lines)];
    const { status, stderr } = await attempt(bounded, {
      timeoutMs: (o.seconds + 20) * 1000,
      environment: { LD_LIBRARY_PATH: [`${qemu}/lib`, `${qemu}/../lib`].map(of => `${of}/x86_64-linux-gnu`).join(':') },
    });
    const shown = `${textOf(screen).slice(-6000)}\n${stderr}${status === 0 ? '' : `ended with ${status}, after ${o.seconds} s it is 137`}`;
    return { results: resultsOf(textOf(lines)), shown };
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function command(o: GuestOptions, screen: string, lines: string): readonly string[] {
  const machine =
    '-accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nodefaults -no-user-config -display none -no-reboot -nic none';
  const append = `console=ttyS0 quiet panic=-1 tests=${o.tests.join()} without=${(o.without ?? []).join()}`;
  return [
    join(qemu, 'bin/qemu-system-x86_64'),
    ['qemu', 'seabios'].flatMap(name => ['-L', join(qemu, 'share', name)]),
    machine.split(' '),
    ['-kernel', join(root, '.cache/kernels', o.kernel, 'vmlinuz')],
    ['-initrd', join(images, `${o.kernel}.cpio`)],
    ['-drive', `file=${join(images, 'disk')},if=virtio,format=raw,snapshot=on`],
    ['-append', append, '-serial', `file:${screen}`, '-serial', `file:${lines}`],
  ].flat();
}

function textOf(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

function resultsOf(text: string): readonly GuestResult[] {
  return text.split('\n').flatMap(line => {
    try {
      return [JSON.parse(line) as GuestResult];
    } catch {
      // The last line of a guest whose time was over.
      return [];
    }
  });
}
