/** `tartan etcd`: the etcd that `tartan init` made gets members on other hosts, and loses them. */
import { setTimeout as delay } from 'node:timers/promises';
import { formatIpv4, parseIpv4, type Ipv4 } from '../model/ip.js';
import { makeMemberCertificate, placeCertificates } from '../setup/certificates.js';
import { peerUrlOf, planEtcd } from '../setup/etcd-plan.js';
import {
  administratorOptions,
  checkEtcdVersion,
  hasOwnEtcd,
  readEtcdFacts,
  readOwnNetworks,
  removeCertificates,
  removeEtcdData,
} from '../setup/own-etcd.js';
import { readSetupState, readShipped } from '../setup/setup-state.js';
import { runSetup } from '../setup/step.js';
import { formatMemberToken, looksLikeToken, parseMemberToken } from '../setup/token.js';
import { EtcdMembers, type EtcdMember } from '../store/etcd/members.js';
import type { Call } from './commands.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import { requireRoot } from './join.js';
import { readSecret } from './secret-input.js';
import type { OptionValues } from './settings.js';
import { prefixOf } from './token-commands.js';

const joinMs = 600_000;

/** Prints the token of a new member, and waits until that has its vote. */
export async function addMember(call: Call, text: string, values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  const address = parseIpv4(text);
  const members = new EtcdMembers(administratorOptions(prefixOf(values)));
  try {
    const found = findMember(await members.list(), address);
    if (found && !found.isLearner)
      throw new ToolError(exitStatus.error, `${text} has a member already`, `tartan etcd remove ${text} ends that`);
    if (!found) await members.addLearner(peerUrlOf(address));
    const name = `etcd-${text}`;
    const all = await members.list();
    const cluster = all
      .map(one => `${findMember([one], address) ? name : one.name}=${one.peerUrls[0] ?? ''}`)
      .join(',');
    const certificate = await makeMemberCertificate(address);
    call.io.stderr(
      `token of the member on ${text}, shown once, with its private key; give it there to: tartan etcd join -\n` +
        'this waits until that is done; interrupted, the same command goes on with another token\n',
    );
    call.io.stdout(`${formatMemberToken({ address: text, name, cluster, ...certificate })}\n`);
    await untilVoting(members, address);
    const count = (await members.list()).length;
    call.io.stderr(
      `${text} is one of ${count} members` +
        (count % 2 === 0 ? ': add one more, an even number outlives no more losses than one less\n' : '\n') +
        'hosts learn of it when they join again: tartan token new here, tartan join - there\n',
    );
    return exitStatus.ok;
  } finally {
    members.close();
  }
}

function findMember(members: readonly EtcdMember[], address: Ipv4): EtcdMember | undefined {
  return members.find(({ peerUrls }) => peerUrls.includes(peerUrlOf(address)));
}

/** @throws ToolError when it has not come in time; it has no vote then, and nothing waits for it */
async function untilVoting(members: EtcdMembers, address: Ipv4): Promise<void> {
  const text = formatIpv4(address);
  for (const endMs = performance.now() + joinMs; performance.now() < endMs; await delay(500)) {
    const found = findMember(await members.list(), address);
    if (!found) throw new ToolError(exitStatus.error, `${text} was removed`, `tartan etcd add ${text}`);
    if (!found.isLearner || (await members.promote(found.id))) return;
  }
  throw new ToolError(
    exitStatus.error,
    `the member on ${text} has not come within ${joinMs / 60_000} minutes; it has no vote`,
    `tartan etcd add ${text}, or: tartan etcd remove ${text}`,
  );
}

/** Sets the member up on this host, by the token. */
export async function joinMember(call: Call, word: string, values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  if (word !== '-')
    throw new ToolError(
      exitStatus.usage,
      looksLikeToken(word) ? 'a token must not be an argument: every user of this host can read those' : 'expected -',
      'tartan etcd join -',
    );
  if (hasOwnEtcd())
    throw new ToolError(exitStatus.error, 'this host has an etcd of tartan already', 'tartan uninstall removes it');
  const { address: text, name, cluster, ca, certificate, key } = parseMemberToken(await readSecret('token: '));
  const address = parseIpv4(text);
  await readSetupState();
  if (!(await readOwnNetworks()).some(({ prefix }) => prefix.length === 32 && prefix.base === address))
    throw new ToolError(
      exitStatus.error,
      `the token is for the host with ${text}, and this one has not that address`,
      'give it there, or make one for this host: tartan etcd add ADDRESS',
    );
  const effects = {
    checkVersion: checkEtcdVersion,
    makeCertificates: () => placeCertificates({ ca, certificate, key }),
    removeCertificates: async () => removeCertificates(),
    removeData: async () => removeEtcdData(),
  };
  const request = {
    address,
    name,
    cluster,
    clusterToken: 'tartan',
    unitText: readShipped('systemd/tartan-etcd.service'),
  };
  const steps = planEtcd(request, await readEtcdFacts(), effects);
  await runSetup(steps, {
    say: line => call.io.stdout(`${line}\n`),
    dryRun: values['dryRun'] === true,
    settle: [['systemctl', 'daemon-reload']],
  });
  return exitStatus.ok;
}

export async function removeMember(call: Call, text: string, values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  const address = parseIpv4(text);
  const options = administratorOptions(prefixOf(values));
  const members = new EtcdMembers(options);
  try {
    const all = await members.list();
    const found = findMember(all, address);
    if (!found || all.length === 1 || found.clientUrls.some(url => options.endpoints.includes(url)))
      throw new ToolError(
        exitStatus.error,
        found
          ? `the member on ${text} is that of this host, which alone makes tokens`
          : `there is no member on ${text}`,
        `there are: ${all.flatMap(({ peerUrls }) => peerUrls).join(', ')}`,
      );
    await members.remove(found.id);
    call.io.stdout(`${text} is no member any more; left to do there: tartan uninstall --destroy-etcd\n`);
    return exitStatus.ok;
  } finally {
    members.close();
  }
}
