/* A FUSE file system of nothing but its root directory, served to this very VE until somebody has looked at it.
 *
 * Exits with 0 if the kernel asked us what the root is and believed the answer; else with the errno of what failed.
 * Source: linux/fuse.h; fuse(4).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLACE "/mnt"
#define LINKS 77

static int fail(const char *what)
{
	int error = errno;

	printf("%s: %s\n", what, strerror(error));
	return error ? error : 1;
}

static int look(void)
{
	struct stat seen;

	if (stat(PLACE, &seen))
		return fail("stat");
	return seen.st_nlink == LINKS ? 0 : 1;
}

static void answer(int fuse, const struct fuse_in_header *asked, int error, const void *body, size_t size)
{
	char packet[4096];
	struct fuse_out_header head = {.len = sizeof(head) + size, .error = error, .unique = asked->unique};

	memcpy(packet, &head, sizeof(head));
	memcpy(packet + sizeof(head), body, size);
	if (write(fuse, packet, head.len) < 0)
		fail("write");
}

static void serve(int fuse, const struct fuse_in_header *asked)
{
	struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 4096};
	struct fuse_attr_out attr = {.attr_valid = 60, .attr = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = LINKS}};

	if (asked->opcode == FUSE_INIT)
		answer(fuse, asked, 0, &init, sizeof(init));
	else if (asked->opcode == FUSE_GETATTR)
		answer(fuse, asked, 0, &attr, sizeof(attr));
	else if (asked->opcode != FUSE_FORGET && asked->opcode != FUSE_BATCH_FORGET)
		answer(fuse, asked, -ENOSYS, "", 0);
}

int main(void)
{
	static char packet[1 << 17] __attribute__((aligned(8)));
	char options[80];
	int status, fuse = open("/dev/fuse", O_RDWR);
	pid_t viewer;

	if (fuse < 0)
		return fail("open /dev/fuse");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	if (mount("served", PLACE, "fuse", MS_NOSUID | MS_NODEV, options))
		return fail("mount");
	viewer = fork();
	if (viewer == 0)
		_exit(look());
	fcntl(fuse, F_SETFL, O_NONBLOCK);
	while (waitpid(viewer, &status, WNOHANG) == 0) {
		if (read(fuse, packet, sizeof(packet)) > 0)
			serve(fuse, (const struct fuse_in_header *)packet);
		else
			usleep(1000);
	}
	umount2(PLACE, MNT_DETACH);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
