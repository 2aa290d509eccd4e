/**
 * The user and the group that the data process becomes. Any process of the same user may stop or end it, so it has one
 * of its own: that of the name, where a package or systemd-sysusers(8) has made it, else the first number of a range
 * that belongs to nobody, else the account `nobody`.
 */
import { setImmediate } from 'node:timers/promises';
import { TartanError } from '../../lib/errors.js';
import { listPids, processName, readOrEmpty } from './find-process.js';

export interface Account {
  readonly user: number;
  readonly group: number;
  readonly warning: string | undefined;
}

/** What an account is chosen by; unit tests give texts of their own. */
export interface AccountFacts {
  /** Returns the text of a file; empty when it cannot be read. */
  read(path: string): string;
  /** The numbers of the processes. */
  pids(): readonly string[];
}

const accountName = 'tartan-datapath';
/** No distribution and no systemd gives these numbers away; those of a container's first 65,536 reach so far. */
const firstFree = 65_520;
const lastFree = 65_533;
const nobody = 65_534;
const pidsAtOnce = 50;

const realFacts: AccountFacts = { read: readOrEmpty, pids: listPids };

/** @throws TartanError PERMISSION when this user namespace has no user but root to become */
export async function chooseAccount(facts: AccountFacts = realFacts): Promise<Account> {
  const maps = ['uid_map', 'gid_map'].map(name => rangesOf(facts.read(`/proc/self/${name}`)));
  const isMapped = (user: number, group: number): boolean =>
    [user, group].every((number, i) => maps[i]?.some(([first, count]) => number >= first && number < first + count));
  const named = namedAccount(facts);
  if (named && named.user > 0 && named.group > 0 && isMapped(named.user, named.group))
    return { ...named, warning: undefined };
  const problem =
    named && `the account ${accountName} has user ${named.user} and group ${named.group}, which cannot be used`;
  const taken = await takenNumbers(facts);
  for (let number = firstFree; number <= lastFree; number++)
    if (isMapped(number, number) && !taken.has(number)) return { user: number, group: number, warning: problem };
  if (isMapped(nobody, nobody))
    return {
      user: nobody,
      group: nobody,
      warning: `${problem ?? `no number from ${firstFree} to ${lastFree} is free`}: the data process is of nobody, and any process of nobody can end it; make an account ${accountName}`,
    };
  throw new TartanError(
    'PERMISSION',
    `the data process cannot become another user than root: /proc/self/uid_map has none of the numbers ${firstFree} to ${nobody}; map 65536 users and groups into the container`,
  );
}

function rangesOf(map: string): readonly (readonly [first: number, count: number])[] {
  return linesOf(map).map(line => {
    const [first = NaN, , count = NaN] = line.trim().split(/ +/).map(Number);
    return [first, count];
  });
}

function linesOf(text: string): readonly string[] {
  return text.split('\n').filter(line => line !== '');
}

function namedAccount(facts: AccountFacts): { readonly user: number; readonly group: number } | undefined {
  const entry = (path: string): readonly string[] | undefined =>
    linesOf(facts.read(path))
      .map(line => line.split(':'))
      .find(([name]) => name === accountName);
  const user = entry('/etc/passwd');
  const group = entry('/etc/group')?.[2] ?? user?.[3];
  return user && { user: Number(user[2]), group: Number(group) };
}

/** Users and groups that have a name, or a process that is no data process. */
async function takenNumbers(facts: AccountFacts): Promise<ReadonlySet<number>> {
  const columns = { '/etc/passwd': [2, 3], '/etc/group': [2] };
  const taken = new Set<number>();
  for (const [path, numbers] of Object.entries(columns))
    for (const line of linesOf(facts.read(path))) for (const i of numbers) taken.add(Number(line.split(':')[i]));
  for (const [i, pid] of facts.pids().entries()) {
    // Thousands of processes must not hold up the daemon.
    if (i % pidsAtOnce === 0) await setImmediate();
    const status = facts.read(`/proc/${pid}/status`);
    // A data process before this one, or of another host of the machine.
    if (status.startsWith(`Name:\t${processName}\n`)) continue;
    for (const [, numbers = ''] of status.matchAll(/^(?:Uid|Gid|Groups):\t(.*)$/gm))
      for (const number of numbers.split(/\s+/)) taken.add(Number(number));
  }
  return taken;
}
