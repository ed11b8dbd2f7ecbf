// A dynamic informer of client-go on Devices: it lists, watches, sees updates and deletions, resyncs, and survives a
// restart of the server. It says on standard output what it saw; the test writes the objects and reads along.
//
//	informer -kubeconfig FILE -namespace NAME
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Shorter than a person would have it, so that the test sees one.
const resync = 2 * time.Second

func say(what string, object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	if device, ok := object.(*unstructured.Unstructured); ok {
		kind, _, _ := unstructured.NestedString(device.Object, "spec", "device_type")
		fmt.Println(what, device.GetName(), kind)
	}
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "file")
	namespace := flag.String("namespace", "", "namespace to watch")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, resync, *namespace, nil)
	devices := schema.GroupVersionResource{Group: "wasmbed.github.io", Version: "v1alpha1", Resource: "devices"}
	informer := factory.ForResource(devices)
	_, err = informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { say("added", object) },
		UpdateFunc: func(old, object any) {
			before, after := old.(*unstructured.Unstructured), object.(*unstructured.Unstructured)
			if before.GetResourceVersion() == after.GetResourceVersion() {
				say("resynced", object)
			} else {
				say("updated", object)
			}
		},
		DeleteFunc: func(object any) { say("deleted", object) },
	})
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	factory.Start(stop)
	for resource, synced := range factory.WaitForCacheSync(stop) {
		if !synced {
			return fmt.Errorf("%v did not sync", resource)
		}
	}
	fmt.Println("synced")
	// Until standard input ends, each line asks for the names in the cache.
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		fmt.Println("cached", len(informer.Informer().GetStore().ListKeys()))
	}
	close(stop)
	factory.Shutdown()
	return input.Err()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
