# Prints the tests of fwknop's own suite as JSON, one a line: perl definitions.pl FOLDER CLIENT SERVER
# FOLDER is `test` of fwknop's source. Nothing is run: test-fwknop.pl is read up to where its tests begin.
use strict;
use warnings;
use B ();
use JSON::PP ();

my ($folder, $client, $server) = @ARGV;
chdir $folder or die "$folder: $!";
open my $driver, '<', 'test-fwknop.pl' or die "test-fwknop.pl: $!";
my $text = do { local $/; <$driver> };
$text =~ s/^&init\(\);/&os_fw_detect(); \$FW_TYPE = 'iptables'; \$fw_conf_prefix = 'ipt'; \$FW_PREFIX = 'IPT';/m;
$text =~ s/^&validate_test_hashes\(\);.*?(?=^sub )/main::print_definitions(); exit 0;\n/ms or die 'another driver';
$text =~ s/^exit 1 unless GetOptions\(/1 unless GetOptions(/m;

sub plain {
    my $value = shift;
    my $kind = ref $value;
    return B::svref_2object($value)->GV->NAME if $kind eq 'CODE';
    return "$value" if $kind eq 'Regexp' or not $kind;
    return [map { plain($_) } @$value] if $kind eq 'ARRAY';
    return {map { $_ => plain($value->{$_}) } keys %$value};
}

sub print_definitions {
    no strict 'refs';
    my $json = JSON::PP->new->canonical->ascii;
    my %names = (%{"main::"});
    for my $file (sort glob 'tests/*.pl') {
        my ($group) = $file =~ m|([^/]+)\.pl$|;
        open my $source, '<', $file or die "$file: $!";
        for my $line (<$source>) {
            next unless $line =~ /^\@(\w+)\s*=\s*\(/;
            print $json->encode({%{plain($_)}, group => $group}), "\n" for @{"main::$1"};
        }
    }
}

@ARGV = ('--fwknop-path', $client, '--fwknopd-path', $server, '--loopback-intf', 'lo', '--prefer-iptables');
unshift @INC, '.';
eval "no strict; no warnings; $text; 1" or die $@;
