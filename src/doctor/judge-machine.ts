/** Judges the kernel and the machine under tartan: its device, its settings, its tables, who else manages links. */
import type { Finding } from '../docker/verify/finding.js';
import { factValue } from '../lib/fact.js';
import type { Status } from '../agent/status.js';
import { check, diagnosis, uncheckedIf, type Check } from './check.js';
import type { DoctorFacts, HostFacts, LinkManager, UnderlayFindings } from './facts.js';
import { problemsAt } from './judge-problems.js';

export function judgeMachine({ status: fact, host, underlay }: DoctorFacts): readonly Check[] {
  const status = factValue(fact);
  return [
    check('Host', 'routes and rules are as planned', status ? problemsAt(status, ['host']) : []),
    check('Host', `Linux ${host.kernel}, /dev/net/tun opens`, judgeTun(host)),
    check('Host', 'settings of tartan0 are as planned', judgeSettings(status, host, underlay)),
    check('Host', 'connection tracking has room', judgeConntrack(host)),
    check('Host', 'no other program manages tartan0', judgeManagers(host)),
    check('Host', 'processors are free', judgePressure(host)),
  ];
}

function judgeTun({ tunDevice }: HostFacts): readonly Finding[] {
  if (!tunDevice.known) return uncheckedIf('tun-device', '/dev/net/tun', tunDevice);
  const refusal = tunDevice.value;
  if (refusal === undefined) return [];
  const isAbsent = refusal === 'ENOENT' || refusal === 'ENODEV' || refusal === 'ENXIO';
  return [
    diagnosis('error', 'tun-device', {
      found: `/dev/net/tun ${isAbsent ? 'is absent' : 'is forbidden'} (${refusal})`,
      cause: isAbsent
        ? 'the module tun is not loaded, or the container has no such device'
        : 'the device rules of the container or of the unit forbid it',
      expected: 'a device that tartand may open: without it, it cannot start again',
      repair: isAbsent
        ? 'modprobe tun'
        : 'allow the device: lxc.cgroup2.devices.allow = c 10:200 rwm, or DeviceAllow=/dev/net/tun',
    }),
  ];
}

function judgeSettings(
  status: Status | undefined,
  { settings }: HostFacts,
  { tunnel }: UnderlayFindings,
): readonly Finding[] {
  if (!settings.known) return uncheckedIf('link-settings', 'the settings of tartan0', settings);
  if (!factValue(tunnel) || status?.ready === false) return [];
  return settings.value.flatMap(({ name, wanted, found }) => {
    const value = factValue(found);
    if (value === undefined || value === wanted) return [];
    return [
      diagnosis('error', 'link-setting', {
        found: `${name} is ${value}`,
        cause: 'another program or an operator has changed it; tartand puts it back at its next sweep',
        expected: wanted,
        repair: `sysctl -w ${name}=${wanted}`,
      }),
    ];
  });
}

const nearlyFull = 0.9;

function judgeConntrack({ conntrack }: HostFacts): readonly Finding[] {
  if (!conntrack.known) return uncheckedIf('conntrack', 'the table of connections', conntrack);
  const { count = 0, max = 0 } = conntrack.value ?? {};
  if (max === 0 || count < max * nearlyFull) return [];
  const isFull = count >= max * 0.99;
  return [
    diagnosis(isFull ? 'error' : 'warning', 'conntrack-full', {
      found: `the table of connections has ${count} of ${max} entries`,
      cause: 'many connections, or old ones that are kept for long; what finds no room is dropped',
      expected: `fewer than ${Math.floor(max * nearlyFull)}`,
      repair: `sysctl -w net.netfilter.nf_conntrack_max=${max * 2}`,
    }),
  ];
}

const unmanage: Readonly<Record<LinkManager, string>> = {
  'systemd-networkd':
    "printf '[Match]\\nName=tartan0\\n[Link]\\nUnmanaged=yes\\n' > /etc/systemd/network/05-tartan.network && networkctl reload",
  NetworkManager:
    "printf '[keyfile]\\nunmanaged-devices+=interface-name:tartan0\\n' > /etc/NetworkManager/conf.d/90-tartan.conf && nmcli general reload",
};

function judgeManagers({ linkManagers }: HostFacts): readonly Finding[] {
  return linkManagers.map(name =>
    diagnosis('warning', 'link-managed', {
      found: `${name} manages tartan0`,
      cause: 'a .network file or a profile of it matches the link: it may take its address and its routes away',
      expected: 'tartan0 unmanaged',
      repair: unmanage[name],
    }),
  );
}

/** Percent of time in which something waited. */
const highPressure = 80;

function judgePressure({ pressure }: HostFacts): readonly Finding[] {
  const percent = factValue(pressure) ?? 0;
  if (percent < highPressure) return [];
  return [
    diagnosis('note', 'processor-pressure', {
      found: `something waited for a processor in ${Math.round(percent)} % of the last ten seconds`,
      cause: 'this host has more to do than its processors can',
      expected: `less than ${highPressure} %`,
      repair: 'top: see what uses them',
    }),
  ];
}
