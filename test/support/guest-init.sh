#!/bin/busybox sh
# The first program in a guest (guest.ts): finds the disk, gives it the modules of this kernel but those named on the
# kernel's command line, `without=NAME,NAME`, and hands over to guest-run.sh.
export PATH=/bin
/bin/busybox --install -s /bin
# The kernel itself asks by this name.
mkdir -p /sbin && ln -s /bin/busybox /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in virtio_pci virtio_blk ext4; do modprobe $module 2>/dev/null; done
for _ in $(seq 200); do [ -e /dev/vda ] || usleep 50000; done
mount -t ext4 /dev/vda /new || poweroff -f
mount -t tmpfs modules /new/usr/lib/modules
cp -a /lib/modules/* /new/usr/lib/modules/
without=$(sed -n 's/.*without=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' ')
for module in $without; do find /new/usr/lib/modules -name "$module.ko" -exec rm {} +; done
for place in proc sys dev; do mount --move /$place /new/$place; done
exec switch_root /new /bin/bash /tartan/test/support/guest-run.sh
