/**
 * The faults that people call about, each injected, named by `tartan status` and `tartan doctor` with its cause and the
 * next step, and healed. `TARTAN_DIAGNOSIS=all` (npm run test:long -- diagnosis) runs every row, else a selection.
 */
import { afterAll, describe, onTestFailed, test } from 'vitest';
import { defaultNetwork, keyPrefix } from '../support/lab.js';
import { useLab } from '../support/use-lab.js';
import { FaultEtcd } from './faults/etcd.js';
import { diagnoseRow, lastSeen, type DiagnosisRow } from './diagnosis/row.js';
import { dockerRows } from './diagnosis/docker-rows.js';
import { kernelRows } from './diagnosis/kernel-rows.js';
import { ownRows, unprivilegedRows } from './diagnosis/own-rows.js';
import { memberRows, storeRows } from './diagnosis/store-rows.js';
import { slowRows, underlayRows } from './diagnosis/underlay-rows.js';

const runsAll = process.env['TARTAN_DIAGNOSIS'] === 'all';
const chosen = (rows: readonly DiagnosisRow[]): readonly DiagnosisRow[] =>
  rows.filter(({ isQuick = false }) => runsAll || isQuick);

describe('between hosts', () => {
  const lab = useLab({ nodes: ['a', 'b', 'c'] }, opened => opened.bringUp());

  test.each(chosen([...underlayRows, ...ownRows, ...slowRows]))('$id $what', async row => {
    onTestFailed(() => void process.stderr.write(`${lastSeen}\n`));
    await diagnoseRow(lab(), row);
  });
});

describe('the store', () => {
  const lab = useLab({ nodes: ['a'] }, opened => opened.bringUp());

  test.each(chosen(storeRows))('$id $what', async row => {
    onTestFailed(() => void process.stderr.write(`${lastSeen}\n`));
    await diagnoseRow(lab(), row);
  });
});

describe('Docker', () => {
  const lab = useLab({ nodes: ['a'], docker: true }, opened => opened.bringUp());

  test.each(chosen(dockerRows))('$id $what', async row => {
    onTestFailed(() => void process.stderr.write(`${lastSeen}\n`));
    await diagnoseRow(lab(), row);
  });
});

if (runsAll) {
  describe('by the kernel', () => {
    const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.bringUp());

    test.each(kernelRows)('$id $what', async row => {
      onTestFailed(() => void process.stderr.write(`${lastSeen}\n`));
      await diagnoseRow(lab(), row);
    });
  });

  describe('three members of etcd', () => {
    let etcd: FaultEtcd | undefined;
    const members = (): FaultEtcd => {
      if (!etcd) throw new Error('the members were not started');
      return etcd;
    };
    const lab = useLab({ nodes: ['a'], etcd: false }, async opened => {
      etcd = new FaultEtcd(opened.spaces, 3);
      await etcd.start();
      await etcd.write({ [`${keyPrefix}/config`]: defaultNetwork });
      await opened.bringUp({ 'etcd-endpoints': etcd.endpoints });
    });
    afterAll(() => etcd?.close());

    test.each(memberRows(members))('$id $what', async row => {
      onTestFailed(() => void process.stderr.write(`${lastSeen}\n`));
      await diagnoseRow(lab(), row);
    });
  });

  describe('an unprivileged container', () => {
    const lab = useLab({ nodes: ['a', 'x'], unprivileged: ['x'] }, opened => opened.bringUp());

    test.each(unprivilegedRows)('$id $what', async row => {
      onTestFailed(() => void process.stderr.write(`${lastSeen}\n`));
      await diagnoseRow(lab(), row);
    });
  });
}
