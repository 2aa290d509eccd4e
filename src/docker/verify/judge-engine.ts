/** Judges whether an engine answers, and what its version means for the overlay. */
import { acceptMark } from '../../model/plan.js';
import { engineRelease, type EngineState } from '../engine.js';
import type { DockerdOptions } from '../settings/dockerd-options.js';
import type { DockerFacts } from './facts.js';
import { finding, type Finding } from './finding.js';

/** The oldest engine that tartan's rules were tested with. */
const oldestMajor = 20;

export function judgeEngine(facts: DockerFacts, options: DockerdOptions): readonly Finding[] {
  const { engine } = facts;
  if (engine.kind === 'answers')
    return [...judgeVersion(engine.state.version), ...judgeBackend(engine.state, options), ...judgeRules(options)];
  const runs = facts.commandLine.known && facts.commandLine.value !== undefined;
  switch (engine.kind) {
    case 'denied':
      return [finding('error', 'docker-denied', [engine.reason, 'the right to ask Docker', 'run it again with sudo'])];
    case 'odd':
      return [
        finding('error', 'docker-odd', [
          engine.reason,
          'an answer of a Docker engine',
          'name its socket: --docker-host',
        ]),
      ];
    case 'silent':
      if (runs)
        return [
          finding('error', 'docker-elsewhere', [
            `a dockerd runs, and ${engine.reason}`,
            'the socket that it listens on',
            'tartan docker verify --docker-host unix:///PATH',
          ]),
        ];
      return facts.program === undefined
        ? [
            finding('error', 'docker-absent', [
              'Docker is not installed',
              'a Docker engine',
              'apt-get install docker.io',
            ]),
          ]
        : [
            finding('error', 'docker-stopped', [
              `${facts.program} is installed and does not run: ${engine.reason}`,
              'a running Docker engine',
              'systemctl start docker',
            ]),
          ];
  }
}

function judgeVersion(version: string): readonly Finding[] {
  const release = engineRelease(version);
  if (!release || release[0] < oldestMajor)
    return [
      finding('warning', 'engine-version', [
        `engine ${version}, with which tartan was not tried`,
        `engine ${oldestMajor}.10 or newer`,
        'apt-get install docker.io',
      ]),
    ];
  if (release[0] < 28) return [];
  return [
    finding('note', 'engine-raw-drop', [
      `engine ${version} drops what is routed to containers before the filter table is asked`,
      'a rule of tartan passes what arrives on the overlay device',
    ]),
  ];
}

/** An `accept` of our nftables table does not end the judgement of Docker's: its backend must know our mark. */
function judgeBackend(state: EngineState, options: DockerdOptions): readonly Finding[] {
  if (!state.nftables) return [];
  const missing = [
    ...(acceptsMark(options.get('bridge-accept-fwmark') ?? '') ? [] : [`--bridge-accept-fwmark=${acceptedMark}`]),
    ...(options.get('allow-direct-routing') === 'true' ? [] : ['--allow-direct-routing']),
  ];
  if (missing.length === 0) return [];
  return [
    finding('error', 'docker-nftables', [
      `Docker filters with nftables and was started without ${missing.join(' and ')}`,
      'these flags, so that packets of the overlay pass',
      `add ${missing.join(' ')} to dockerd's flags and restart Docker`,
    ]),
  ];
}

const acceptedMark = `0x${acceptMark.toString(16)}/0x${acceptMark.toString(16)}`;

function acceptsMark(text: string): boolean {
  const [value = NaN, mask = value] = text.split('/').map(Number);
  return value === acceptMark && (mask & acceptMark) === acceptMark;
}

function judgeRules(options: DockerdOptions): readonly Finding[] {
  return [
    ...(options.get('iptables') === 'false'
      ? [
          finding('note', 'docker-iptables-off', [
            'Docker makes no packet filter rules (iptables=false)',
            'tartan makes its own all the same; published ports go through docker-proxy',
          ]),
        ]
      : []),
    ...(options.get('icc') === 'false'
      ? [
          finding('note', 'docker-icc-off', [
            'containers of docker0 cannot reach each other on this host (icc=false)',
            'containers of other hosts reach them all the same',
          ]),
        ]
      : []),
  ];
}
