/** Puts right what is ours alone: settings of the tunnel's link, and the file that names the leased subnet. */
import { writeFileSync } from 'node:fs';
import { writeSubnetFile } from '../docker/settings/docker-files.js';
import { parseSubnetEnv } from '../docker/settings/settings.js';
import type { DoctorFacts } from '../doctor/facts.js';
import { messageOf } from '../lib/errors.js';
import { factValue } from '../lib/fact.js';
import { formatPrefix, parsePrefix } from '../model/ip.js';

/** @returns one line for each change, or for one that failed */
export function fixOwn(facts: DoctorFacts): readonly string[] {
  return [...fixSettings(facts), ...fixSubnetFile(facts)];
}

function fixSettings({ host, underlay }: DoctorFacts): readonly string[] {
  if (!factValue(underlay.tunnel)) return [];
  return (factValue(host.settings) ?? []).flatMap(({ name, wanted, found }) => {
    const value = factValue(found);
    if (value === undefined || value === wanted) return [];
    return attempt(`sysctl ${name}=${wanted}`, () =>
      writeFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, `${wanted}\n`),
    );
  });
}

function fixSubnetFile({ status: fact, own }: DoctorFacts): readonly string[] {
  const status = factValue(fact);
  const { path, text } = own.subnetFile;
  if (!status?.ready || !status.lease || !status.docker || status.network === null || !text.known) return [];
  const found = text.value === undefined ? undefined : parseSubnetEnv(text.value);
  if (found && formatPrefix(found) === status.lease.subnet) return [];
  const settings = {
    network: parsePrefix(status.network),
    subnet: parsePrefix(status.lease.subnet),
    mtu: status.docker.mtu,
    ipMasquerade: status.docker.masquerade,
  };
  return attempt(`wrote ${path}`, () => void writeSubnetFile(path, settings));
}

function attempt(what: string, change: () => void): readonly string[] {
  try {
    change();
    return [what];
  } catch (error) {
    return [`not ${what}: ${messageOf(error)}`];
  }
}
