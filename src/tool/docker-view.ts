/** Formats `tartan docker plan` and `verify` as documents of `tartan/v1` and as text. */
import { apiVersion } from '../agent/status.js';
import { dockerFlags, settingsFile, type DockerPlan } from '../docker/settings/docker-plan.js';
import type { DockerFacts } from '../docker/verify/facts.js';
import type { Finding } from '../docker/verify/finding.js';
import { formatBridgeAddress, formatPrefix } from '../model/ip.js';
import { freeParts } from '../model/lease-parts.js';
import { formatFields, type Cell, type Colour, type Field, type Paint } from './table.js';

export interface DockerPlanView {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'DockerPlan';
  /** `files`: the daemon could not be asked, the plan comes from the files that it wrote last. */
  readonly source: DockerPlan['source'];
  readonly network: string;
  readonly lease: string;
  readonly bip: string;
  readonly mtu: number;
  readonly ipMasq: false;
  readonly flags: readonly string[];
  /** The file that Docker gets the flags from. */
  readonly settingsFile: string;
  /** Parts of the lease that docker0 leaves to `tartan docker network create`. */
  readonly forNetworks: readonly string[];
  /** Of these Docker makes its own networks, by prefix and length of each. */
  readonly pools: readonly { readonly base: string; readonly size: number }[];
  /** What tartand does in the packet filter, so that Docker's rules do not matter. */
  readonly firewall: { readonly device: string; readonly forward: boolean; readonly masquerade: boolean };
}

export function planViewOf(plan: DockerPlan): DockerPlanView {
  const { device, forward, masquerade } = plan;
  return {
    apiVersion,
    kind: 'DockerPlan',
    source: plan.source,
    network: formatPrefix(plan.network),
    lease: formatPrefix(plan.lease),
    bip: formatBridgeAddress(plan.bridge),
    mtu: plan.mtu,
    ipMasq: false,
    flags: dockerFlags(plan),
    settingsFile: settingsFile(plan),
    forNetworks: freeParts(plan.bridge, plan.lease).map(formatPrefix),
    pools: plan.pools.map(({ base, size }) => ({ base: formatPrefix(base), size })),
    firewall: { device, forward, masquerade },
  };
}

export function formatPlan(view: DockerPlanView, paint: Paint): string {
  const { device, forward, masquerade } = view.firewall;
  const { network } = view;
  const free = view.forNetworks.join(', ');
  return formatFields(
    [
      ['lease', `${view.lease} of ${network}`],
      ['docker0', `${view.bip}, MTU ${view.mtu}`],
      ['dockerd flags', view.flags.join(' ')],
      ['handed over in', view.settingsFile],
      ['for other networks', free || 'nothing: docker0 gets the whole lease'],
      ...(view.pools.length === 0
        ? []
        : [["Docker's own networks", view.pools.map(({ base, size }) => `/${size} of ${base}`).join(', ')] as const]),
      ['forwarding', forward ? `accepted by tartand: ${network} from and to ${device}` : 'left to rules of yours'],
      [
        'masquerade',
        masquerade ? `by tartand, for what leaves ${network}; never by Docker` : 'by nobody: --ip-masq=false',
      ],
    ],
    paint,
  );
}

export interface VerifyReport {
  readonly apiVersion: typeof apiVersion;
  readonly kind: 'DockerReport';
  /** No finding is an error. */
  readonly ok: boolean;
  readonly engine: string | null;
  readonly plan: DockerPlanView;
  readonly findings: readonly Finding[];
}

export function reportOf(plan: DockerPlan, facts: DockerFacts, findings: readonly Finding[]): VerifyReport {
  return {
    apiVersion,
    kind: 'DockerReport',
    ok: !findings.some(({ severity }) => severity === 'error'),
    engine: facts.engine.kind === 'answers' ? facts.engine.state.version : null,
    plan: planViewOf(plan),
    findings,
  };
}

const colours: Readonly<Record<Finding['severity'], Colour>> = {
  error: 'bad',
  warning: 'bad',
  note: 'faint',
  unchecked: 'faint',
};

export function formatReport(report: VerifyReport, paint: Paint): string {
  const engine = report.engine === null ? 'no engine' : `engine ${report.engine}`;
  const verdict: Cell = report.ok
    ? { text: `as it should be, ${engine}`, colour: 'good' }
    : { text: `not as it should be, ${engine}`, colour: 'bad' };
  const { bip, mtu } = report.plan;
  const head: readonly Field[] = [
    ['Docker', verdict],
    ['wanted', `docker0 at ${bip}, MTU ${mtu}, no masquerade of Docker's`],
  ];
  return [head, ...report.findings.map(fieldsOf)].map(fields => formatFields(fields, paint)).join('\n');
}

function fieldsOf({ id, severity, found, expected, repair }: Finding): readonly Field[] {
  return [
    [severity, { text: id, colour: colours[severity] }],
    ['found', found],
    ['expected', expected],
    ...(repair === null ? [] : [['repair', { text: repair, colour: 'strong' }] as const]),
  ];
}
