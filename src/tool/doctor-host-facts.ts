/** Reads what `tartan doctor` judges of the kernel: its device, its settings, its tables, who manages links. */
import { closeSync, constants, openSync } from 'node:fs';
import { release } from 'node:os';
import { linkSysctls } from '../backend/udp.js';
import type { HostFacts, LinkManager, SettingFacts } from '../doctor/facts.js';
import { errnoOf } from '../lib/errors.js';
import { factValue, known, unknown, type Fact } from '../lib/fact.js';
import { readTextFile } from '../lib/file.js';

/** @param tunnelIndex of the tunnel's link; undefined: there is none */
export function readHostFacts(underlay: string | undefined, tunnelIndex: number | undefined): HostFacts {
  return {
    kernel: release(),
    tunDevice: tunRefusal(),
    settings: known(linkSysctls.map(settingOf)),
    reversePath: {
      all: readSetting('net.ipv4.conf.all.rp_filter'),
      // A dot in the name of a link would be a folder.
      underlay: readSetting(`net.ipv4.conf.${underlay && !/[./]/.test(underlay) ? underlay : 'default'}.rp_filter`),
    },
    conntrack: readConntrack(),
    pressure: readPressure(),
    linkManagers: tunnelIndex === undefined ? [] : linkManagers(tunnelIndex),
  };
}

/** Opening the device makes no link (TUNSETIFF would). */
function tunRefusal(): Fact<string | undefined> {
  try {
    closeSync(openSync('/dev/net/tun', constants.O_RDWR));
    return known(undefined);
  } catch (error) {
    const errno = errnoOf(error) ?? 'failed';
    const isRoot = process.geteuid?.() === 0;
    return !isRoot && (errno === 'EACCES' || errno === 'EPERM') ? unknown('this user may not open it') : known(errno);
  }
}

function settingOf([name, wanted]: (typeof linkSysctls)[number]): SettingFacts {
  return { name, wanted, found: readSetting(name) };
}

function readSetting(name: string): Fact<string> {
  const text = readTextFile(`/proc/sys/${name.replaceAll('.', '/')}`);
  if (!text.known) return text;
  return text.value === undefined ? unknown('there is no such setting') : known(text.value.trim());
}

/** @returns undefined as the value where nothing tracks connections */
function readConntrack(): HostFacts['conntrack'] {
  const [count, max] = ['count', 'max'].map(name => readTextFile(`/proc/sys/net/netfilter/nf_conntrack_${name}`));
  if (!count?.known || !max?.known) return unknown(count?.known === false ? count.why : 'not readable');
  if (count.value === undefined || max.value === undefined) return known(undefined);
  return known({ count: Number(count.value), max: Number(max.value) });
}

/** `some avg10=1.23 ...` (Documentation/accounting/psi.rst). */
function readPressure(): HostFacts['pressure'] {
  const text = factValue(readTextFile('/proc/pressure/cpu'));
  const average = /^some avg10=([\d.]+)/m.exec(text ?? '')?.[1];
  return known(average === undefined ? undefined : Number(average));
}

/** Both write one file for each link: systemd-networkd its setup state, NetworkManager the profile that it has activated. */
function linkManagers(index: number): readonly LinkManager[] {
  const networkd = factValue(readTextFile(`/run/systemd/netif/links/${index}`)) ?? '';
  const other = factValue(readTextFile(`/run/NetworkManager/devices/${index}`)) ?? '';
  return [
    ...(/^ADMIN_STATE=(configuring|configured|failed)$/m.test(networkd) ? (['systemd-networkd'] as const) : []),
    // A link that it only shows has no profile.
    ...(/^connection-uuid=./m.test(other) ? (['NetworkManager'] as const) : []),
  ];
}
