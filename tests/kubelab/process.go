package main

// Really runs a container's command on this machine (off unless -allow-exec).

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type process struct {
	cmd  *exec.Cmd
	out  string
	dir  string
	done chan struct{}
	code int
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
func (p *process) term() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }
func (p *process) kill() { _ = p.cmd.Process.Kill(); <-p.done; _ = os.RemoveAll(p.dir) }

// stamp is how the container runtimes write the time before each line of a log.
const stamp = "2006-01-02T15:04:05.000000000Z07:00"

// logFile keeps what a process writes as a container runtime does: whole lines, each with its time.
type logFile struct {
	mu   sync.Mutex
	file *os.File
	rest []byte
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		end := bytes.IndexByte(l.rest, '\n')
		if end < 0 {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(l.file, "%s %s", time.Now().UTC().Format(stamp), l.rest[:end+1]); err != nil {
			return 0, err
		}
		l.rest = l.rest[end+1:]
	}
}

func (l *logFile) close() {
	if len(l.rest) > 0 {
		_, _ = l.Write([]byte{'\n'})
	}
	_ = l.file.Close()
}

func (k *kubelet) killAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, st := range k.state {
		if st.proc != nil {
			st.proc.kill()
		}
	}
}

// startProcess runs the first container's command+args with its environment
// (literal, secretKeyRef, configMapKeyRef, envFrom, fieldRef namespace/name) and
// a KUBECONFIG that holds a token of the pod's own ServiceAccount, so that RBAC is real.
func (k *kubelet) startProcess(ctx context.Context, pod *corev1.Pod) (*process, error) {
	c := pod.Spec.Containers[0]
	ns := pod.Namespace
	env := []string{"PATH=" + os.Getenv("PATH"), "HOSTNAME=" + pod.Name, "KUBERNETES_SERVICE_HOST=127.0.0.1",
		"KUBERNETES_SERVICE_PORT=" + k.rest.Host[strings.LastIndex(k.rest.Host, ":")+1:]}
	for _, f := range c.EnvFrom {
		if f.SecretRef != nil {
			if s, err := k.client.CoreV1().Secrets(ns).Get(ctx, f.SecretRef.Name, metav1.GetOptions{}); err == nil {
				for n, v := range s.Data {
					env = append(env, f.Prefix+n+"="+string(v))
				}
			}
		}
		if f.ConfigMapRef != nil {
			if s, err := k.client.CoreV1().ConfigMaps(ns).Get(ctx, f.ConfigMapRef.Name, metav1.GetOptions{}); err == nil {
				for n, v := range s.Data {
					env = append(env, f.Prefix+n+"="+v)
				}
			}
		}
	}
	for _, e := range c.Env {
		v := e.Value
		if s := e.ValueFrom; s != nil {
			switch {
			case s.SecretKeyRef != nil:
				o, err := k.client.CoreV1().Secrets(ns).Get(ctx, s.SecretKeyRef.Name, metav1.GetOptions{})
				if err != nil {
					return nil, err
				}
				v = string(o.Data[s.SecretKeyRef.Key])
			case s.ConfigMapKeyRef != nil:
				o, err := k.client.CoreV1().ConfigMaps(ns).Get(ctx, s.ConfigMapKeyRef.Name, metav1.GetOptions{})
				if err != nil {
					return nil, err
				}
				v = o.Data[s.ConfigMapKeyRef.Key]
			case s.FieldRef != nil && s.FieldRef.FieldPath == "metadata.namespace":
				v = ns
			case s.FieldRef != nil && s.FieldRef.FieldPath == "metadata.name":
				v = pod.Name
			}
		}
		env = append(env, e.Name+"="+v)
	}
	dir, err := os.MkdirTemp("", "kubelab-pod-")
	if err != nil {
		return nil, err
	}
	sa := pod.Spec.ServiceAccountName
	ttl := int64(3600)
	tok, err := k.client.CoreV1().ServiceAccounts(ns).CreateToken(ctx, sa, &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: &ttl, BoundObjectRef: &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	kc := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: pod\nclusters: [{name: pod, cluster: {server: %q, certificate-authority: %q}}]\nusers: [{name: pod, user: {token: %q}}]\ncontexts: [{name: pod, context: {cluster: pod, user: pod, namespace: %q}}]\n",
		k.rest.Host, k.rest.CAFile, tok.Status.Token, ns)
	if err := os.WriteFile(dir+"/kubeconfig", []byte(kc), 0o600); err != nil {
		return nil, err
	}
	env = append(env, "KUBECONFIG="+dir+"/kubeconfig")
	argv := append(append([]string{}, c.Command...), c.Args...)
	if len(argv) == 0 {
		return nil, fmt.Errorf("no command")
	}
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), dir: dir, out: dir + "/out", done: make(chan struct{})}
	f, err := os.Create(p.out)
	if err != nil {
		return nil, err
	}
	log := &logFile{file: f}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = env, dir, log, log
	// A child that outlives it must not keep the log open.
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		p.code = 128
		fmt.Fprintln(log, err)
		log.close()
		close(p.done)
		return p, nil
	}
	go func() {
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
		if p.code < 0 {
			p.code = 137
		}
		log.close()
		close(p.done)
	}()
	return p, nil
}
