// Typed clients of client-go with its defaults, so that bodies travel as protobuf: namespaces, Leases, Events, reviews,
// requests for certificates, Secrets, ResourceQuotas, an informer and leader election. Each step prints one line; the first failure ends it.
//
//	typed -kubeconfig FILE -namespace NAME
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	certificates "k8s.io/api/certificates/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	clients "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
)

// Longest wait for anything.
const patience = 30 * time.Second

const protobuf = "application/vnd.kubernetes.protobuf"

type suite struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file")
	namespace := flag.String("namespace", "", "namespace to work in; it must exist")
	flag.Parse()
	if err := run(*kubeconfig, *namespace); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(kubeconfig, namespace string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	// The default for built-in kinds in components of Kubernetes; bodies go out and come back in this form alone.
	config.ContentType = protobuf
	config.AcceptContentTypes = protobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	s := &suite{config: config, client: client, namespace: namespace}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"namespaces", s.namespaces},
		{"leases", s.leases},
		{"reviews", s.reviews},
		{"requests", s.requests},
		{"secrets", s.secrets},
		{"quotas", s.quotas},
		{"events", s.events},
		{"informer", s.informer},
		{"leader election", s.election},
	}
	for _, step := range steps {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println(step.name)
	}
	return nil
}

func (s *suite) namespaces(ctx context.Context) error {
	namespaces := s.client.CoreV1().Namespaces()
	name := s.namespace + "-typed"
	created, err := namespaces.Create(ctx, &core.Namespace{
		ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"a": "b"}},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	if created.UID == "" || created.Labels["a"] != "b" || created.CreationTimestamp.IsZero() || created.Status.Phase != core.NamespaceActive {
		return fmt.Errorf("created: %+v", created)
	}
	if _, err := namespaces.Create(ctx, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name}}, meta.CreateOptions{}); !errors.IsAlreadyExists(err) {
		return fmt.Errorf("created twice: %v", err)
	}
	list, err := namespaces.List(ctx, meta.ListOptions{LabelSelector: "a=b"})
	if err != nil {
		return err
	}
	if len(list.Items) != 1 || list.Items[0].Name != name || list.ResourceVersion == "" {
		return fmt.Errorf("list: %+v", list)
	}
	return namespaces.Delete(ctx, name, meta.DeleteOptions{Preconditions: meta.NewUIDPreconditions(string(created.UID))})
}

func (s *suite) leases(ctx context.Context) error {
	leases := s.client.CoordinationV1().Leases(s.namespace)
	holder, seconds, transitions := "me", int32(15), int32(0)
	now := meta.NewMicroTime(time.Date(2026, 11, 28, 12, 0, 0, 123_456_000, time.UTC))
	lease := &coordination.Lease{
		ObjectMeta: meta.ObjectMeta{Name: "typed", Annotations: map[string]string{"note": "ü"}},
		Spec: coordination.LeaseSpec{
			HolderIdentity: &holder, LeaseDurationSeconds: &seconds, LeaseTransitions: &transitions,
			AcquireTime: &now, RenewTime: &now,
		},
	}
	created, err := leases.Create(ctx, lease, meta.CreateOptions{})
	if err != nil {
		return err
	}
	if created.Spec.LeaseTransitions == nil || !created.Spec.RenewTime.Equal(&now) || created.Annotations["note"] != "ü" {
		return fmt.Errorf("created: %+v", created)
	}
	stale := created.DeepCopy()
	created.Spec.HolderIdentity = nil
	updated, err := leases.Update(ctx, created, meta.UpdateOptions{})
	if err != nil {
		return err
	}
	if updated.Spec.HolderIdentity != nil || len(updated.ManagedFields) == 0 || updated.ManagedFields[0].FieldsV1 == nil {
		return fmt.Errorf("updated: %+v", updated)
	}
	if _, err := leases.Update(ctx, stale, meta.UpdateOptions{}); !errors.IsConflict(err) {
		return fmt.Errorf("updated with an old resourceVersion: %v", err)
	}
	patched, err := leases.Patch(ctx, "typed", types.MergePatchType, []byte(`{"spec":{"holderIdentity":"other"}}`), meta.PatchOptions{})
	if err != nil {
		return err
	}
	if *patched.Spec.HolderIdentity != "other" {
		return fmt.Errorf("patched: %+v", patched)
	}
	if err := leases.Delete(ctx, "typed", meta.DeleteOptions{}); err != nil {
		return err
	}
	if _, err := leases.Get(ctx, "typed", meta.GetOptions{}); !errors.IsNotFound(err) {
		return fmt.Errorf("read after its deletion: %v", err)
	}
	return nil
}

func (s *suite) reviews(ctx context.Context) error {
	who, err := s.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authentication.SelfSubjectReview{}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	if who.Status.UserInfo.Username == "" || !strings.Contains(strings.Join(who.Status.UserInfo.Groups, " "), "system:authenticated") {
		return fmt.Errorf("whoami: %+v", who)
	}
	may, err := s.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorization.SelfSubjectAccessReview{
		Spec: authorization.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorization.ResourceAttributes{
			Namespace: s.namespace, Verb: "create", Group: "wasmbed.github.io", Resource: "devices",
		}},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	if !may.Status.Allowed {
		return fmt.Errorf("can-i: %+v", may)
	}
	for _, verb := range []string{"list", "delete"} {
		asked, err := s.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorization.SubjectAccessReview{
			Spec: authorization.SubjectAccessReviewSpec{
				User: "gateway:one", Groups: []string{"wasmbed:gateways"},
				ResourceAttributes: &authorization.ResourceAttributes{
					Namespace: s.namespace, Verb: verb, Group: "wasmbed.github.io", Resource: "devices",
				},
			},
		}, meta.CreateOptions{})
		if err != nil {
			return err
		}
		if asked.Status.Allowed != (verb == "list") {
			return fmt.Errorf("may a gateway %s: %+v", verb, asked)
		}
	}
	return nil
}

// A request from its creation to its certificate, with the bytes as they were sent.
func (s *suite) requests(ctx context.Context) error {
	requests := s.client.CertificatesV1().CertificateSigningRequests()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	subject := pkix.Name{CommonName: "typed"}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return err
	}
	asked := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	seconds := int32(3600)
	made, err := requests.Create(ctx, &certificates.CertificateSigningRequest{
		ObjectMeta: meta.ObjectMeta{GenerateName: "typed-"},
		Spec: certificates.CertificateSigningRequestSpec{
			Request: asked, SignerName: "wasmbed.github.io/device", ExpirationSeconds: &seconds,
			Usages: []certificates.KeyUsage{certificates.UsageClientAuth}, Username: "somebody",
		},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	if !bytes.Equal(made.Spec.Request, asked) || made.Spec.Username == "somebody" || *made.Spec.ExpirationSeconds != seconds {
		return fmt.Errorf("created: %+v", made)
	}
	made.Status.Conditions = append(made.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type: certificates.CertificateApproved, Status: core.ConditionTrue, Reason: "Typed", Message: "by a test",
	})
	approved, err := requests.UpdateApproval(ctx, made.Name, made, meta.UpdateOptions{})
	if err != nil {
		return err
	}
	if len(approved.Status.Conditions) != 1 || approved.Status.Conditions[0].LastUpdateTime.IsZero() {
		return fmt.Errorf("approved: %+v", approved.Status)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotAfter: time.Now().Add(time.Hour)}
	issued, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued})
	approved.Status.Certificate = chain
	if _, err = requests.UpdateStatus(ctx, approved, meta.UpdateOptions{}); err != nil {
		return err
	}
	approved.Status.Certificate = append(chain, chain...)
	approved.ResourceVersion = ""
	if _, err = requests.UpdateStatus(ctx, approved, meta.UpdateOptions{}); !errors.IsInvalid(err) {
		return fmt.Errorf("a second certificate: %v", err)
	}
	list, err := requests.List(ctx, meta.ListOptions{FieldSelector: "spec.signerName=wasmbed.github.io/device,metadata.name=" + made.Name})
	if err != nil {
		return err
	}
	if len(list.Items) != 1 || !bytes.Equal(list.Items[0].Status.Certificate, chain) {
		return fmt.Errorf("listed: %+v", list.Items)
	}
	return requests.Delete(ctx, made.Name, meta.DeleteOptions{})
}

// A Secret with bytes that are no text, and text that becomes bytes.
func (s *suite) secrets(ctx context.Context) error {
	secrets := s.client.CoreV1().Secrets(s.namespace)
	value := []byte{0, 255, 10}
	made, err := secrets.Create(ctx, &core.Secret{
		ObjectMeta: meta.ObjectMeta{Name: "typed"},
		Data:       map[string][]byte{"bytes": value, "empty": {}},
		StringData: map[string]string{"text": "word"},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	if !bytes.Equal(made.Data["bytes"], value) || string(made.Data["text"]) != "word" || made.Type != core.SecretTypeOpaque {
		return fmt.Errorf("created: %+v", made)
	}
	made.Data["more"] = value
	if _, err = secrets.Update(ctx, made, meta.UpdateOptions{}); err != nil {
		return err
	}
	list, err := secrets.List(ctx, meta.ListOptions{FieldSelector: "type=Opaque,metadata.name=typed"})
	if err != nil {
		return err
	}
	if len(list.Items) != 1 || !bytes.Equal(list.Items[0].Data["more"], value) || len(list.Items[0].Data) != 4 {
		return fmt.Errorf("listed: %+v", list.Items)
	}
	return secrets.Delete(ctx, made.Name, meta.DeleteOptions{})
}

// A ResourceQuota whose status a client writes, as the controller of a cluster does; it is shown once more as it goes.
func (s *suite) quotas(ctx context.Context) error {
	quotas := s.client.CoreV1().ResourceQuotas(s.namespace)
	hard := core.ResourceList{"count/secrets": resource.MustParse("1000"), "wasmbed.github.io/module-bytes": resource.MustParse("1.5Mi")}
	made, err := quotas.Create(ctx, &core.ResourceQuota{
		ObjectMeta: meta.ObjectMeta{Name: "typed"},
		Spec:       core.ResourceQuotaSpec{Hard: hard},
	}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	bytes := made.Spec.Hard["wasmbed.github.io/module-bytes"]
	if bytes.Value() != 3<<19 || bytes.String() != "1536Ki" {
		return fmt.Errorf("created: %+v", made)
	}
	made.ResourceVersion = ""
	made.Status = core.ResourceQuotaStatus{Hard: made.Spec.Hard, Used: core.ResourceList{"count/secrets": resource.MustParse("0")}}
	if _, err = quotas.UpdateStatus(ctx, made, meta.UpdateOptions{}); err != nil {
		return err
	}
	list, err := quotas.List(ctx, meta.ListOptions{FieldSelector: "metadata.name=typed"})
	if err != nil {
		return err
	}
	if len(list.Items) != 1 {
		return fmt.Errorf("listed: %+v", list.Items)
	}
	bound, used := list.Items[0].Status.Hard["count/secrets"], list.Items[0].Status.Used["count/secrets"]
	if bound.String() != "1k" || !used.IsZero() {
		return fmt.Errorf("listed: %+v", list.Items)
	}
	return quotas.Delete(ctx, made.Name, meta.DeleteOptions{})
}

func (s *suite) events(ctx context.Context) error {
	events := s.client.CoreV1().Events(s.namespace)
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&clients.EventSinkImpl{Interface: events})
	recorder := broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: "typed"})
	about := &core.ObjectReference{Kind: "Namespace", APIVersion: "v1", Name: s.namespace, Namespace: s.namespace}
	// The second one raises the count of the first.
	recorder.Event(about, core.EventTypeNormal, "Typed", "the same")
	recorder.Event(about, core.EventTypeNormal, "Typed", "the same")
	return wait(func() (bool, error) {
		list, err := events.List(ctx, meta.ListOptions{FieldSelector: "reason=Typed"})
		if err != nil {
			return false, err
		}
		return len(list.Items) == 1 && list.Items[0].Count == 2 && !list.Items[0].LastTimestamp.IsZero(), nil
	})
}

func (s *suite) informer(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithNamespace(s.namespace))
	informer := factory.Coordination().V1().Leases().Informer()
	seen := make(chan string, 16)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { seen <- "added " + object.(*coordination.Lease).Name },
		UpdateFunc: func(_, object any) { seen <- "updated " + *object.(*coordination.Lease).Spec.HolderIdentity },
		DeleteFunc: func(any) { seen <- "deleted" },
	}); err != nil {
		return err
	}
	stop := make(chan struct{})
	defer factory.Shutdown()
	defer close(stop)
	factory.Start(stop)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("it did not sync")
	}
	leases := s.client.CoordinationV1().Leases(s.namespace)
	lease, err := leases.Create(ctx, &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: "watched"}}, meta.CreateOptions{})
	if err != nil {
		return err
	}
	holder := "me"
	lease.Spec.HolderIdentity = &holder
	if _, err := leases.Update(ctx, lease, meta.UpdateOptions{}); err != nil {
		return err
	}
	if err := leases.Delete(ctx, "watched", meta.DeleteOptions{}); err != nil {
		return err
	}
	for _, wanted := range []string{"added watched", "updated me", "deleted"} {
		select {
		case what := <-seen:
			if what != wanted {
				return fmt.Errorf("it saw %q instead of %q", what, wanted)
			}
		case <-time.After(patience):
			return fmt.Errorf("it never saw %q", wanted)
		}
	}
	return nil
}

func (s *suite) election(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, s.namespace, "elected",
		resourcelock.ResourceLockConfig{Identity: "typed"}, s.config, 2*time.Second)
	if err != nil {
		return err
	}
	leads := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: 4 * time.Second, RenewDeadline: 3 * time.Second, RetryPeriod: 500 * time.Millisecond,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(leads) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { elector.Run(ctx); close(ended) }()
	select {
	case <-leads:
	case <-time.After(patience):
		return fmt.Errorf("it never led")
	}
	leases := s.client.CoordinationV1().Leases(s.namespace)
	first, err := leases.Get(ctx, "elected", meta.GetOptions{})
	if err != nil {
		return err
	}
	if err := wait(func() (bool, error) {
		lease, err := leases.Get(ctx, "elected", meta.GetOptions{})
		return err == nil && first.Spec.RenewTime.Before(lease.Spec.RenewTime), err
	}); err != nil {
		return fmt.Errorf("renewal: %w", err)
	}
	cancel()
	<-ended
	lease, err := leases.Get(context.Background(), "elected", meta.GetOptions{})
	if err != nil {
		return err
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		return fmt.Errorf("it kept the Lease: held by %q", *holder)
	}
	return nil
}

// wait asks again until it is so.
func wait(done func() (bool, error)) error {
	for since := time.Now(); time.Since(since) < patience; time.Sleep(50 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("it did not come about within %v", patience)
}
