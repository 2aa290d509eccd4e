/** The unit files against what the program does by itself; test/e2e/systemd.test.ts boots them. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseDaemonOptions, type DaemonOptions } from '../../src/daemon/options.js';
import { gateFile } from '../../src/docker/settings/settings.js';
import { root } from '../support/tools.js';

/** The values of each setting, in the order of the file. */
function settings(file: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  for (const line of readFileSync(join(root, 'config/systemd', file), 'utf8').split('\n')) {
    const [, name, value] = /^([A-Za-z]+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) found.set(name, [...(found.get(name) ?? []), value]);
  }
  return found;
}

function defaults(): DaemonOptions {
  const invocation = parseDaemonOptions([], {});
  if (invocation.kind !== 'run') throw new Error('the daemon would not run');
  return invocation.options;
}

const dropIns = ['docker.service.d/tartan.conf', 'redhat/docker.service.d/tartan.conf'];

/** The command with its continued lines. */
function gateOf(file: string): string {
  const text = readFileSync(join(root, 'config/systemd', file), 'utf8');
  return /^ExecStartPre=((?:.*\\\n)*.*)$/m.exec(text)?.[1] ?? '';
}

describe('tartand.service', () => {
  const unit = settings('tartand.service');

  it("may write where the daemon's defaults are", () => {
    const { runDir, subnetFile, dockerEnvFile, stateDir } = defaults();
    const writable = [
      ...(unit.get('RuntimeDirectory') ?? []).flatMap(names => names.split(' ').map(name => `/run/${name}`)),
      ...(unit.get('StateDirectory') ?? []).map(name => `/var/lib/${name}`),
    ];
    expect(writable).toEqual(expect.arrayContaining([runDir, stateDir, dirname(subnetFile), dirname(dockerEnvFile)]));
  });

  it('never ends the data plane, its files, or the attempts to start', () => {
    expect(unit.get('KillMode')).toEqual(['process']);
    expect(unit.get('RuntimeDirectoryPreserve')).toEqual(['yes']);
    expect(unit.get('Restart')).toEqual(['always']);
    expect(unit.get('StartLimitIntervalSec')).toEqual(['0']);
    expect(unit.get('TimeoutStartSec')).toEqual(['infinity']);
  });

  it('fault U7: is pulled in by Docker while it is enabled', () => {
    expect(unit.get('WantedBy')).toEqual(['multi-user.target', 'docker.service']);
  });
});

describe.each(dropIns)('%s', file => {
  const dropIn = settings(file);

  it('makes Docker wait for tartand, and neither start it nor fall with it', () => {
    expect(dropIn.get('After')).toEqual(['tartand.service']);
    for (const name of ['Wants', 'Requires', 'BindsTo', 'PartOf', 'Requisite', 'Upholds'])
      expect(dropIn.has(name)).toBe(false);
    expect(dropIn.get('TimeoutStartSec')).toEqual(['infinity']);
  });

  it('hands over a copy of the file that the daemon writes, if there is one', () => {
    const { dockerEnvFile } = defaults();
    expect(dropIn.get('EnvironmentFile')?.[0]).toBe(`-${gateFile(dockerEnvFile)}`);
    expect(gateOf(file)).toContain(`from=${dockerEnvFile}; into=${gateFile(dockerEnvFile)};`);
  });

  it('has the gate of the other one, with full privileges and in one shell', () => {
    expect(gateOf(file)).toBe(gateOf(dropIns[0] ?? ''));
    // Of quotes and dollars systemd would make something else.
    expect(gateOf(file)).toMatch(/^\+sh -c '\\\n(?:[^'$%\\]|\$\$|\\\n)*'$/);
  });
});
