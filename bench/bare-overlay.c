/* The bare kernel calls of an RW layer's life, from C: `bare-overlay DIRECTORY LOWERS COUNT` mounts and unmounts an
 * overlay COUNT times, with upper and work directories made and removed each time. Nothing is recorded, nothing synced. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void check(long result, const char *what) {
  if (result >= 0) return;
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static void set(int context, const char *key, const char *value) {
  check(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0), key);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: bare-overlay DIRECTORY LOWERS COUNT\n");
    return 2;
  }
  int lowers = atoi(argv[2]), count = atoi(argv[3]);
  char name[64];
  check(chdir(argv[1]), "chdir");
  for (int i = 0; i < lowers; i++) {
    snprintf(name, sizeof name, "lower%d", i);
    check(mkdir(name, 0755), name);
  }
  for (int n = 0; n < count; n++) {
    check(mkdir("box", 0710), "mkdir");
    check(mkdir("box/diff", 0755), "mkdir");
    check(mkdir("box/work", 0700), "mkdir");
    check(mkdir("box/merged", 0700), "mkdir");
    int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
    check(context, "fsopen");
    for (int i = 0; i < lowers; i++) {
      snprintf(name, sizeof name, "lower%d", i);
      set(context, "lowerdir+", name);
    }
    set(context, "upperdir", "box/diff");
    set(context, "workdir", "box/work");
    check(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "fsconfig create");
    int mounted = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    check(mounted, "fsmount");
    check(syscall(SYS_move_mount, mounted, "", AT_FDCWD, "box/merged", MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
    close(mounted);
    close(context);
    check(umount2("box/merged", UMOUNT_NOFOLLOW), "umount2");
    check(rmdir("box/merged"), "rmdir");
    check(rmdir("box/work/work"), "rmdir");
    check(rmdir("box/work"), "rmdir");
    check(rmdir("box/diff"), "rmdir");
    check(rmdir("box"), "rmdir");
  }
  return 0;
}
