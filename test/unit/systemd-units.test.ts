/** The unit files against what the program does by itself; test/e2e/systemd.test.ts boots them. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseDaemonOptions, type DaemonOptions } from '../../src/daemon/options.js';
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
});

describe.each(dropIns)('%s', file => {
  const dropIn = settings(file);

  it('makes Docker wait, and never fall, with tartand', () => {
    for (const name of ['Wants', 'After']) expect(dropIn.get(name)).toEqual(['tartand.service']);
    for (const name of ['Requires', 'BindsTo', 'PartOf', 'Requisite', 'Upholds']) expect(dropIn.has(name)).toBe(false);
    expect(dropIn.get('StartLimitIntervalSec')).toEqual(['0']);
  });

  it('needs the file that the daemon writes', () => {
    expect(dropIn.get('EnvironmentFile')?.[0]).toBe(defaults().dockerEnvFile);
  });
});
